"""How the C library keeps memory that is freed."""

from __future__ import annotations

import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 8 << 20


def give_back_large_blocks() -> None:
    """Blocks from 8 MiB on go back to the system when they are freed.

    glibc does so with the first ones, and takes that for a sign to keep what is freed later: the
    work space of a merge then stays with the process, some 60 bytes a row that was ever merged.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
