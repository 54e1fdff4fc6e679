"""Memory that is freed and needed again at once."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


def keep_freed_memory() -> None:
    """Lets this process keep large blocks that it frees, where the C library is glibc; elsewhere nothing changes.

    Otherwise glibc gives every large block back to the system, and each feature map of the next layer is faulted in
    again, page by page, which can take longer than computing it. The process then holds on to its peak of memory.
    """
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(_MMAP_MAX, 0)
        glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
