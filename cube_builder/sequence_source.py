"""SequenceFiles as input of a build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube_builder.batches import BATCH_BYTES, Batch
from cube_builder.compression import codec_named
from cube_core._native import SequenceFileReader
from cube_core.errors import BuildError


class SequenceSource:
    """One SequenceFile, plain or compressed.

    Raises:
        SequenceFileError: not read, or malformed (file and offset named).
        BuildError: compressed with a codec that is not read or not installed (file named).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = SequenceFileReader(str(path), codec_named)
        except BuildError as error:
            raise BuildError(f"{path}: {error}") from error

    @property
    def value_bytes(self) -> int:
        return self._reader.value_bytes

    @property
    def input_bytes(self) -> int:
        return self._reader.file_bytes

    def batches(self) -> Iterator[tuple[Batch, int]]:
        records_max = max(1, BATCH_BYTES // (self.value_bytes + 8))
        while True:
            keys, values = self._reader.read(records_max)
            if not len(keys):
                return
            yield (keys, values), self._reader.offset
