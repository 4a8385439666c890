"""Have the C library give memory back that was needed for a moment."""

from __future__ import annotations

import ctypes
from typing import Final

__all__ = ["give_memory_back"]

_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_M_ARENA_MAX: Final = -8
_THRESHOLD_BYTES: Final = 1 << 20
_ARENAS: Final = 2


def give_memory_back() -> bool:
    """Set up glibc's allocator for a process that runs for months; false where there is no glibc.

    Opening a key takes 28 MiB for a tenth of a second. glibc maps the first such block apart, and from then on takes
    blocks of this size from the heap of whatever thread asks and keeps them there: 28 MiB more for each thread that
    ever opened a key. A fixed threshold has every block of a MiB or more mapped apart, and unmapped when it is freed.
    Two heaps for all threads, in place of eight for each processor, leave less lying about; Python's lock lets one
    thread allocate at a time anyway.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl has no mallopt, Windows no such library
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return bool(mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES) and mallopt(_M_ARENA_MAX, _ARENAS))
