"""Pairs set aside on disk, shard by shard, so that a build holds one shard in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ByteValues, Values
from cube_core.errors import BuildError

T = TypeVar("T", bound=np.generic)


class ShardSize(NamedTuple):
    """How much of a shard is set aside; `heap_bytes` is 0 unless the width is variable."""

    shard: int
    record_count: int
    heap_bytes: int


class ShardSpill:
    """Files of a shard under `directory`: keys and values in the order they came, and the values'
    widths when they differ.

    Files are opened for the length of one write, so the number of shards is not bounded by that
    of open files.

    Args:
        value_bytes: of every value; 0 when they are of variable width.
    """

    def __init__(self, directory: Path, shard_num: int, value_bytes: int) -> None:
        self._directory = directory
        self._shard_num = shard_num
        self._value_bytes = value_bytes
        self._counts = np.zeros(shard_num, dtype=np.int64)
        self._heap_bytes = np.zeros(shard_num, dtype=np.int64)

    def largest_shards(self) -> Iterator[ShardSize]:
        """The shard with the most records so far, and the one with the most bytes of values."""
        for shard in {int(self._counts.argmax()), int(self._heap_bytes.argmax())}:
            yield ShardSize(shard, int(self._counts[shard]), int(self._heap_bytes[shard]))

    def add(self, keys: NDArray[np.uint64], values: Values) -> None:
        """Cuts uint64[n] keys and their values over the shards."""
        # 16-bit numbers are sorted by radix, in linear time; stable, so that the last of several
        # equal keys stays the last.
        shards = (keys % np.uint64(self._shard_num)).astype(np.uint16)
        order = np.argsort(shards, kind="stable")
        ends = np.cumsum(np.bincount(shards, minlength=self._shard_num))
        keys = keys[order]
        values = values.take(order) if isinstance(values, ByteValues) else values[order]
        start = 0
        for shard, end in enumerate(ends.tolist()):
            if end > start:
                self._append(shard, keys[start:end], _cut(values, start, end))
            start = end

    def take(self, shard: int) -> tuple[NDArray[np.uint64], Values]:
        """Loads all pairs of a shard and removes its files."""
        paths = self._paths(shard)
        count = int(self._counts[shard])
        keys = _load(paths["keys"], np.uint64)
        values = _load(paths["values"], np.uint8)
        widths = _load(paths["widths"], np.uint16).astype(np.int64)
        bytes_wanted = count * self._value_bytes or int(self._heap_bytes[shard])
        is_whole = self._value_bytes or (len(widths), int(widths.sum())) == (count, bytes_wanted)
        if len(keys) != count or len(values) != bytes_wanted or not is_whole:
            raise BuildError(
                f"{self._directory}: shard {shard} reads back as {len(keys)} keys and "
                f"{len(values)} bytes, {count} pairs were written; check the disk and build again"
            )
        for path in paths.values():
            path.unlink(missing_ok=True)
        if self._value_bytes:
            return keys, values.reshape(count, self._value_bytes)
        return keys, ByteValues.of_widths(widths, values)

    def _append(self, shard: int, keys: NDArray[np.uint64], values: Values) -> None:
        paths = self._paths(shard)
        _write(paths["keys"], keys)
        if isinstance(values, ByteValues):
            _write(paths["widths"], values.widths.astype(np.uint16))
            _write(paths["values"], values.values)
            self._heap_bytes[shard] += len(values.values)
        else:
            _write(paths["values"], values)
        self._counts[shard] += len(keys)

    def _paths(self, shard: int) -> dict[str, Path]:
        return {kind: self._directory / f"{shard}.{kind}" for kind in ("keys", "widths", "values")}


def _cut(values: Values, start: int, end: int) -> Values:
    if not isinstance(values, ByteValues):
        return values[start:end]
    offsets = values.offsets[start : end + 1]
    return ByteValues(offsets - offsets[0], values.values[offsets[0] : offsets[-1]])


def _write(path: Path, items: NDArray[np.generic]) -> None:
    with path.open("ab") as file:
        file.write(items.data)


def _load(path: Path, kind: type[T]) -> NDArray[T]:
    if not path.exists():
        return np.empty(0, kind)
    return np.fromfile(path, dtype=kind)
