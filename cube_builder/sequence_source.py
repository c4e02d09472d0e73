"""SequenceFiles as input of a build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import BATCH_BYTES, ONE_WIDTH, Batch, BytesBatch, ByteValues
from cube_builder.compression import codec_named
from cube_core._native import SequenceFileReader
from cube_core.errors import BuildError, SequenceFileError

_OTHER_WIDTH = "the file's first has"
_PAIRS_PER_BATCH = 1 << 17


class SequenceSource:
    """One SequenceFile, plain or compressed.

    Args:
        deletions: `byte_batches` takes records with an empty value, which delete their key.

    Raises:
        SequenceFileError: not read, or malformed (file and offset named).
        BuildError: compressed with a codec that is not read or not installed (file named).
    """

    def __init__(self, path: Path, *, deletions: bool = False) -> None:
        self.path = path
        self._reader = self._open(deletions)
        self.value_bytes = self._reader.value_bytes
        if deletions and not self.value_bytes:
            self.value_bytes = self._first_width()

    @property
    def input_bytes(self) -> int:
        return self._reader.file_bytes

    def batches(self) -> Iterator[tuple[Batch, int]]:
        records_max = max(1, BATCH_BYTES // (self.value_bytes + 8))
        while True:
            keys, values = self._read(records_max)
            if not len(keys):
                return
            yield (keys, values), self._reader.offset

    def byte_batches(self) -> Iterator[tuple[BytesBatch, int]]:
        while True:
            keys, offsets, values = self._reader.read_bytes(_PAIRS_PER_BATCH, BATCH_BYTES)
            if not len(keys):
                return
            yield (keys, ByteValues(offsets, values)), self._reader.offset

    def _read(self, records_max: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        try:
            return self._reader.read(records_max)
        except SequenceFileError as error:
            if _OTHER_WIDTH in str(error):
                raise SequenceFileError(f"{error}; {ONE_WIDTH}") from error
            raise

    def _first_width(self) -> int:
        """Of the first record that has a value."""
        reader = self._open(deletions=True)
        while True:
            keys, _, values = reader.read_bytes(BATCH_BYTES // 8, 1)
            if len(values) or not len(keys):
                return len(values)

    def _open(self, deletions: bool) -> SequenceFileReader:
        try:
            return SequenceFileReader(str(self.path), codec_named, deletions=deletions)
        except BuildError as error:
            raise BuildError(f"{self.path}: {error}") from error
