"""The memory allocator of glibc: its heap statistics, and a setting that keeps freed memory for reuse."""

import ctypes
from contextlib import suppress

_TRIM_THRESHOLD = -1
_MMAP_MAX = -4


_FIELDS = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")


class _Mallinfo2(ctypes.Structure):
    """The heap statistics of glibc, ``struct mallinfo2``."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _FIELDS)


def live_megabytes() -> float | None:
    """Returns the memory that this process has allocated and not freed, in MB; None if the C library is not glibc."""
    with suppress(OSError, AttributeError):
        mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
        mallinfo.restype = _Mallinfo2
        statistics = mallinfo()
        return float(statistics.uordblks + statistics.hblkhd) / 1e6
    return None


def keep_freed_memory() -> None:
    """Makes glibc keep large freed blocks for reuse; does nothing if the C library is not glibc.

    By default glibc returns every large freed block to the system. The next layer's feature map then causes a page
    fault for each page, which can take longer than computing the map. With this setting the process keeps its peak
    memory.
    """
    with suppress(OSError, AttributeError):
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(_MMAP_MAX, 0)
        glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
