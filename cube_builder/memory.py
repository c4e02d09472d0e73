"""How much memory a build may take, and what a shard of so many records takes."""

from __future__ import annotations

import math
import os

from cube_core.errors import BuildError

# The interpreter with its libraries, and the batches on their way from the input to the spill.
RESERVED_MB = 128

_MB = 1 << 20
# Of the index over a shard's keys while it is made, a record.
_INDEX_BYTES = 24
# Of the place of a value of variable width.
_OFFSET_BYTES = 8
_MACHINE_SHARE = 0.8


def machine_memory_mb() -> int:
    """What a build may take when nobody says: four fifths of the machine's memory."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(RESERVED_MB + 1, int(pages * _MACHINE_SHARE) // _MB)


class MemoryBound:
    """Refuses shards that do not fit `memory_mb`.

    Raises:
        BuildError: `memory_mb` is not over what every build needs.

    Args:
        value_bytes: of every value; 0 when they are of variable width.
    """

    def __init__(self, memory_mb: int, shard_num: int, value_bytes: int) -> None:
        if memory_mb <= RESERVED_MB:
            raise BuildError(f"memory_mb {memory_mb}: must be over {RESERVED_MB}")
        self._memory_mb = memory_mb
        self._shard_num = shard_num
        self._record_bytes = 8 + (value_bytes or _OFFSET_BYTES) + _INDEX_BYTES

    def require(self, shard: int, count: int, heap_bytes: int = 0) -> None:
        """Raises BuildError when a shard of `count` records is too large (limit named).

        Args:
            heap_bytes: of all its values, when they are of variable width.
        """
        needed_bytes = count * self._record_bytes + heap_bytes
        if needed_bytes <= (self._memory_mb - RESERVED_MB) * _MB:
            return
        needed_mb = RESERVED_MB + math.ceil(needed_bytes / _MB)
        raise BuildError(
            f"shard {shard} has {count} records or more, which take {needed_mb} MB: over "
            f"memory_mb={self._memory_mb}; raise --memory_mb, or --shard_num from {self._shard_num}"
        )
