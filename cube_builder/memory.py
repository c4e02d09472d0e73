"""How much memory a build may take, and what a shard of so many records takes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

from cube_core.errors import BuildError

# The interpreter with its libraries, and the batches on their way from the input to the shards.
RESERVED_MB = 128

_MB = 1 << 20
# Of the index over a shard's keys while it is made, a record.
_INDEX_BYTES = 24
# Of the place of a value of variable width.
_OFFSET_BYTES = 8
_MACHINE_SHARE = 0.8
# Of what is free: the tables that are made take as much again of the kernel's cache.
_FREE_SHARE = 0.5


def machine_memory_mb() -> int:
    """What a build may take when nobody says: four fifths of the machine's memory, or of what the
    control group gives."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, _ in group_limits():
        total = min(total, limit)
    return max(RESERVED_MB + 1, int(total * _MACHINE_SHARE) // _MB)


def free_memory_mb() -> int:
    """What a build may fill with records on a machine where others run too: half of what is
    free."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            free = int(line.split()[1]) << 10
    for limit, used in group_limits():
        free = min(free, limit - used)
    return max(0, int(free * _FREE_SHARE) // _MB)


def group_limits(root: Path = Path("/sys/fs/cgroup")) -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of the control groups (version 2) that this process is in, as far as
    they have one."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").strip().rpartition("::")[2]
    except OSError:
        return
    group = root / own.lstrip("/")
    for directory in (group, *group.parents):
        if not directory.is_relative_to(root):
            return
        try:
            limit = (directory / "memory.max").read_text(encoding="ascii").strip()
            used = (directory / "memory.current").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            yield int(limit), int(used)


class MemoryBound:
    """Refuses shards that do not fit `memory_mb`.

    Raises:
        BuildError: `memory_mb` is not over what every build needs.

    Args:
        memory_mb: None: `machine_memory_mb` for a shard, `free_memory_mb` for all that is kept.
        value_bytes: of every value; 0 when they are of variable width.
    """

    def __init__(self, memory_mb: int | None, shard_num: int, value_bytes: int) -> None:
        self._memory_mb = machine_memory_mb() if memory_mb is None else memory_mb
        if self._memory_mb <= RESERVED_MB:
            raise BuildError(f"memory_mb {self._memory_mb}: must be over {RESERVED_MB}")
        self._kept_mb = self._memory_mb if memory_mb is not None else free_memory_mb()
        self._shard_num = shard_num
        self._record_bytes = 8 + (value_bytes or _OFFSET_BYTES) + _INDEX_BYTES

    def left_beside(self, shard: int, count: int, heap_bytes: int = 0) -> int:
        """Bytes that other records may take beside the largest shard, of `count` records; 0 when
        there are none.

        Args:
            heap_bytes: of all its values, when they are of variable width.

        Raises:
            BuildError: the shard itself is too large (limit named).
        """
        needed_bytes = count * self._record_bytes + heap_bytes
        if needed_bytes > (self._memory_mb - RESERVED_MB) * _MB:
            needed_mb = RESERVED_MB + math.ceil(needed_bytes / _MB)
            raise BuildError(
                f"shard {shard} has {count} records or more, which take {needed_mb} MB: over "
                f"memory_mb={self._memory_mb}; raise --memory_mb, or --shard_num from "
                f"{self._shard_num}"
            )
        return max(0, (min(self._memory_mb, self._kept_mb) - RESERVED_MB) * _MB - needed_bytes)
