"""The pairs of a pass, cut over the shards: in memory as far as that goes, else on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ByteValues, Values
from cube_builder.memory import MemoryBound
from cube_core._native import ShardPairs


class ShardSpill:
    """Keys and values of every shard; those of equal keys in the order they came.

    What does not fit `memory` beside the largest shard, which is to be in memory as a whole when
    its table is made, is written to files under `directory`.

    Args:
        value_bytes: of every value; 0 when they are of variable width.
    """

    def __init__(
        self, directory: Path, shard_num: int, value_bytes: int, memory: MemoryBound
    ) -> None:
        self._pairs = ShardPairs(str(directory), shard_num, value_bytes)
        self._memory = memory

    def add(self, keys: NDArray[np.uint64], values: Values) -> None:
        """Cuts uint64[n] keys and their values over the shards.

        Raises:
            BuildError: a shard does not fit the memory.
            OSError: the disk.
        """
        if isinstance(values, ByteValues):
            self._pairs.add(keys, values.values, values.offsets)
        else:
            self._pairs.add(keys, np.ascontiguousarray(values))
        left = [self._memory.left_beside(*size) for size in self._pairs.largest()]
        self._pairs.keep_in_memory(min(left))

    def take(self, shard: int) -> tuple[NDArray[np.uint64], Values]:
        """All pairs of a shard, which are forgotten.

        Raises:
            OSError: the disk.
        """
        keys, values, widths = self._pairs.take(shard)
        if widths is None:
            return keys, values
        return keys, ByteValues.of_widths(widths.astype(np.int64), values)
