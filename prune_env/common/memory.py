"""Memory that is freed and needed again at once."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


_ACCOUNT = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    """glibc's account of its heap, in bytes."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _ACCOUNT)


def live_megabytes() -> float | None:
    """Memory that this process has asked for and not freed, in MB; None where the C library is not glibc."""
    with suppress(OSError, AttributeError):
        mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
        mallinfo.restype = _Mallinfo2
        found = mallinfo()
        return float(found.uordblks + found.hblkhd) / 1e6
    return None


def keep_freed_memory() -> None:
    """Lets this process keep large blocks that it frees, where the C library is glibc; elsewhere nothing changes.

    Otherwise glibc gives every large block back to the system, and each feature map of the next layer is faulted in
    again, page by page, which can take longer than computing it. The process then holds on to its peak of memory.
    """
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(_MMAP_MAX, 0)
        glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
