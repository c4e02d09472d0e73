"""The pairs of any file that this package writes or reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube_builder.batches import Batch
from cube_builder.job import REPORT_NAME
from cube_builder.sources import open_source, source_files
from cube_builder.tables import table_pairs
from cube_core._native import Table

_TABLE_MAGIC = b"CUBETABL"


def read_pairs(path: Path) -> Iterator[Batch]:
    """Yields keys uint64[m] and values uint8[m, width] of a shard table, an input of a build
    or a directory of either: an input's in its order, a table's in the order of its slots.

    Raises:
        BuildError: no such path, or an empty directory.
        TableError, SequenceFileError: a malformed file.
    """
    for file in source_files(path):
        if _is_table(file):
            yield from table_pairs(Table.open(str(file), in_memory=False))
        elif file.name != REPORT_NAME:
            yield from (batch for batch, _ in open_source(file).batches())


def _is_table(path: Path) -> bool:
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(len(_TABLE_MAGIC)) == _TABLE_MAGIC
