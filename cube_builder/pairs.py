"""The pairs of any file that this package writes or reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube_builder.job import REPORT_NAME
from cube_builder.sources import Batch, read_batches, source_files
from cube_core._native import Table

_SEQUENCE_FILE_MAGIC = b"SEQ"
_PAIRS_PER_BATCH = 65_536


def read_pairs(path: Path) -> Iterator[Batch]:
    """Yields keys uint64[m] and values uint8[m, width] of a shard table, a SequenceFile or a
    directory of either: a SequenceFile's in its order, a table's in the order of its slots.

    Raises:
        BuildError: no such path, or an empty directory.
        TableError, SequenceFileError: a malformed file.
    """
    for file in source_files(path):
        if _is_sequence_file(file):
            yield from (batch for batch, _ in read_batches(file))
        elif file.name != REPORT_NAME:
            yield from _table_pairs(file)


def _is_sequence_file(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == _SEQUENCE_FILE_MAGIC


def _table_pairs(path: Path) -> Iterator[Batch]:
    table = Table.open(str(path), in_memory=False)
    slot = 0
    while slot < table.slot_count:
        keys, values, slot = table.pairs(slot, _PAIRS_PER_BATCH)
        if len(keys):
            yield keys, values
