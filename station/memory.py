"""What a process does with memory it has freed."""

from __future__ import annotations

import ctypes
import sys

# The parameters of mallopt(3) by number, as in malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_MIB = 1 << 20


def keep_freed_memory() -> None:
    """Have glibc keep large blocks for the next use.

    Left alone it gives every block of some megabytes back to the kernel and takes it anew, page by
    page: a network's activations and a camera's frames cost more in page faults than in arithmetic
    (docs/benchmarks.md). The process stays as large as it once was. Does nothing without glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * _MIB)
