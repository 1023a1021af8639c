"""What a process asks of the C libraries under it, before they are loaded."""

from __future__ import annotations

import ctypes
import os
import sys

# The parameters of mallopt(3) by number, as in malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_MIB = 1 << 20
_SPINS = "5000"  # some ten microseconds


def prepare() -> None:
    """Call it first, in a command and in a child process; docs/decisions/0027 has the figures."""
    _keep_freed_memory()
    # Torch's threads wait for each other at every layer. Left alone they keep a core busy for
    # milliseconds meanwhile, and so keep each other, the savers and the simulator from it.
    os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def _keep_freed_memory() -> None:
    """Have glibc keep large blocks for the next use.

    Left alone it gives every block of some megabytes back to the kernel and takes it anew, page by
    page: a network's activations cost more in page faults than in arithmetic. The process stays as
    large as it once was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:  # another C library
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * _MIB)
