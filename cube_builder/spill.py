"""Pairs set aside on disk, shard by shard, so that a build holds one shard in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import Batch
from cube_core.errors import BuildError


class ShardSpill:
    """Two files a shard under `directory`: keys and values in the order they came.

    Files are opened for the length of one write, so the number of shards is not bounded by that
    of open files.
    """

    def __init__(self, directory: Path, shard_num: int, value_bytes: int) -> None:
        self._directory = directory
        self._shard_num = shard_num
        self._value_bytes = value_bytes
        self._counts = np.zeros(shard_num, dtype=np.int64)

    def largest_shard(self) -> tuple[int, int]:
        """The shard with the most records so far, and their number."""
        shard = int(self._counts.argmax())
        return shard, int(self._counts[shard])

    def add(self, keys: NDArray[np.uint64], values: NDArray[np.uint8]) -> None:
        """Cuts uint64[n] keys and uint8[n, value_bytes] values over the shards."""
        # 16-bit numbers are sorted by radix, in linear time; stable, so that the last of several
        # equal keys stays the last.
        shards = (keys % np.uint64(self._shard_num)).astype(np.uint16)
        order = np.argsort(shards, kind="stable")
        ends = np.cumsum(np.bincount(shards, minlength=self._shard_num))
        keys, values = keys[order], values[order]
        start = 0
        for shard, end in enumerate(ends.tolist()):
            if end > start:
                self._append(shard, keys[start:end], values[start:end])
            start = end

    def take(self, shard: int) -> Batch:
        """Loads all pairs of a shard and removes its files."""
        keys_path, values_path = self._paths(shard)
        count = int(self._counts[shard])
        if count == 0:
            return np.empty(0, np.uint64), np.empty((0, self._value_bytes), np.uint8)
        keys = np.fromfile(keys_path, dtype=np.uint64)
        values = np.fromfile(values_path, dtype=np.uint8)
        if len(keys) != count or len(values) != count * self._value_bytes:
            raise BuildError(
                f"{keys_path.parent}: shard {shard} reads back as {len(keys)} keys and "
                f"{len(values)} bytes, {count} pairs were written; check the disk and build again"
            )
        keys_path.unlink()
        values_path.unlink()
        return keys, values.reshape(count, self._value_bytes)

    def _append(self, shard: int, keys: NDArray[np.uint64], values: NDArray[np.uint8]) -> None:
        keys_path, values_path = self._paths(shard)
        with keys_path.open("ab") as keys_file, values_path.open("ab") as values_file:
            keys_file.write(keys.data)
            values_file.write(values.data)
        self._counts[shard] += len(keys)

    def _paths(self, shard: int) -> tuple[Path, Path]:
        return self._directory / f"{shard}.keys", self._directory / f"{shard}.values"
