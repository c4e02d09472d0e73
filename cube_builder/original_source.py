"""A directory of shard files that the original cube-builder wrote, as input of a build.

All numbers are little-endian. `index.n`: u32 type, u32 keys, u32 number of index files, u64 bytes
of each. `index.<i>`: pairs of u64 key, u64 address, the number of the data file << 32 | offset.
`data.n`: u32 number of data files, u32 bytes of each. `data.<i>`: u32 4 + value bytes, value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from cube_builder.batches import (
    BATCH_BYTES,
    ONE_WIDTH,
    VALUE_BYTES_MAX,
    Batch,
    BytesBatch,
    ByteValues,
)
from cube_builder.input_names import INDEX_NAME
from cube_core.errors import BuildError

_DATA_NAME = "data.n"
_HASH_INDEX = 0
_PAIR = np.dtype([("key", "<u8"), ("address", "<u8")])
_LENGTH_BYTES = 4
# Taken at once of variable width: as many as the widest make some 100 MB.
_VARIABLE_PAIRS = 2048


class OriginalSource:
    """The index and data files of one shard; of several pairs with a key the last one counts.

    Raises:
        BuildError: a file that is missing, of another size than its list says, or malformed
            (named), or values of different widths (key named).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._indexes = _listed_files(path, INDEX_NAME, "<III", "<Q")
        self._data = [_mapped(file) for file in _listed_files(path, _DATA_NAME, "<I", "<I")]
        self._indexes = [file for file in self._indexes if file.stat().st_size]
        for file in self._indexes:
            if file.stat().st_size % _PAIR.itemsize:
                raise BuildError(f"{file}: {file.stat().st_size} bytes are no whole index entries")
        self.value_bytes = self._first_width()

    @property
    def input_bytes(self) -> int:
        return sum(file.stat().st_size for file in self._indexes)

    def batches(self) -> Iterator[tuple[Batch, int]]:
        pairs_max = max(1, BATCH_BYTES // (self.value_bytes + _PAIR.itemsize))
        for path, pairs, consumed in self._pairs(pairs_max):
            keys = np.ascontiguousarray(pairs["key"])
            yield (keys, self._values(path, keys, pairs["address"])), consumed

    def byte_batches(self) -> Iterator[tuple[BytesBatch, int]]:
        for path, pairs, consumed in self._pairs(_VARIABLE_PAIRS):
            keys = np.ascontiguousarray(pairs["key"])
            yield (keys, self._byte_values(path, keys, pairs["address"])), consumed

    def _pairs(self, pairs_max: int) -> Iterator[tuple[Path, NDArray[np.void], int]]:
        """Index entries, the file that they are of, and the bytes of all files consumed."""
        consumed = 0
        for path in self._indexes:
            with path.open("rb") as file:
                while len(pairs := np.fromfile(file, _PAIR, pairs_max)):
                    consumed += pairs.nbytes
                    yield path, pairs, consumed

    def _first_width(self) -> int:
        if not self._indexes:
            return 0
        first = np.fromfile(self._indexes[0], _PAIR, 1)
        return int(self._widths(self._indexes[0], first["key"], first["address"])[0])

    def _widths(
        self, index: Path, keys: NDArray[np.uint64], addresses: NDArray[np.uint64]
    ) -> NDArray[np.int64]:
        """int64[n]: bytes of each value, as its record says."""
        lengths = self._gather(index, keys, addresses, _LENGTH_BYTES).view("<u4")[:, 0]
        widths = lengths.astype(np.int64) - _LENGTH_BYTES
        if len(others := np.flatnonzero((widths < 1) | (widths > VALUE_BYTES_MAX))):
            raise BuildError(
                f"{self.path}: key {keys[others[0]]}: a value of {widths[others[0]]} bytes; "
                f"supported are 1 to {VALUE_BYTES_MAX}"
            )
        return widths

    def _byte_values(
        self, index: Path, keys: NDArray[np.uint64], addresses: NDArray[np.uint64]
    ) -> ByteValues:
        """The values, gathered width by width."""
        widths = self._widths(index, keys, addresses)
        order = np.argsort(widths, kind="stable")
        gathered: list[NDArray[np.uint8]] = []
        for width in np.unique(widths).tolist():
            at = np.flatnonzero(widths == width)
            records = self._gather(index, keys[at], addresses[at], _LENGTH_BYTES + width)
            gathered.append(records[:, _LENGTH_BYTES:].reshape(-1))
        by_width = ByteValues.of_widths(widths[order], np.concatenate(gathered))
        places = np.empty(len(order), np.intp)
        places[order] = np.arange(len(order))
        return by_width.take(places)

    def _values(
        self, index: Path, keys: NDArray[np.uint64], addresses: NDArray[np.uint64]
    ) -> NDArray[np.uint8]:
        records = self._gather(index, keys, addresses, _LENGTH_BYTES + self.value_bytes)
        lengths = np.ascontiguousarray(records[:, :_LENGTH_BYTES]).view("<u4")[:, 0]
        wanted = _LENGTH_BYTES + self.value_bytes
        if len(others := np.flatnonzero(lengths != wanted)):
            raise BuildError(
                f"{self.path}: key {keys[others[0]]}: a value of "
                f"{int(lengths[others[0]]) - _LENGTH_BYTES} bytes; the first has "
                f"{self.value_bytes}; {ONE_WIDTH}"
            )
        return np.ascontiguousarray(records[:, _LENGTH_BYTES:])

    def _gather(
        self,
        index: Path,
        keys: NDArray[np.uint64],
        addresses: NDArray[np.uint64],
        size: int,
    ) -> NDArray[np.uint8]:
        """uint8[n, size]: the bytes that stand at each of the addresses."""
        numbers = addresses >> np.uint64(32)
        offsets = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
        gathered = np.empty((len(keys), size), np.uint8)
        for number in np.unique(numbers).tolist():
            of_file = numbers == number
            data = self._data[number] if number < len(self._data) else np.empty(0, np.uint8)
            outside = of_file & (offsets > len(data) - size)
            if outside.any():
                at = int(np.flatnonzero(outside)[0])
                raise BuildError(
                    f"{index}: key {keys[at]}: its address, {offsets[at]} in data.{number}, is "
                    "not inside the data files"
                )
            # Every place of the file as the begin of a record: only those asked for are copied.
            places = as_strided(data, (len(data) - size + 1, size), (1, 1), writeable=False)
            gathered[of_file] = places[offsets[of_file]]
        return gathered


def _listed_files(directory: Path, list_name: str, head: str, length: str) -> list[Path]:
    """The files that `index.n` or `data.n` lists, each checked to have its size."""
    list_path = directory / list_name
    try:
        content = list_path.read_bytes()
        *kind, count = struct.unpack_from(head, content)
        lengths = [
            value for (value,) in struct.iter_unpack(length, content[struct.calcsize(head) :])
        ]
    except FileNotFoundError:
        raise BuildError(f"{list_path}: no such file; the directory is no whole shard") from None
    except struct.error:
        raise BuildError(f"{list_path}: cut off or malformed") from None
    if len(lengths) != count:
        raise BuildError(f"{list_path}: lists {len(lengths)} of {count} files")
    if kind and kind[0] != _HASH_INDEX:
        raise BuildError(f"{list_path}: an index of type {kind[0]}; only hash (0) is read")
    files = [directory / f"{list_name[:-1]}{number}" for number in range(count)]
    for file, size in zip(files, lengths, strict=True):
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise BuildError(
                f"{file}: {'no such file' if found is None else f'{found} bytes'}, but "
                f"{list_name} says {size} bytes; a patch is no input without its base"
            )
    return files


def _mapped(path: Path) -> NDArray[np.uint8]:
    if path.stat().st_size == 0:
        return np.empty(0, np.uint8)
    return np.memmap(path, np.uint8, "r")
