"""The pairs of any file that this package writes or reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ByteValues, Values
from cube_builder.job import REPORT_NAME
from cube_builder.sources import open_source, source_files
from cube_builder.tables import table_pairs
from cube_core._native import Table

_TABLE_MAGIC = b"CUBETABL"


def read_pairs(path: Path) -> Iterator[tuple[NDArray[np.uint64], Values]]:
    """Yields keys uint64[m] and values of a shard table, an input of a build or a directory of
    either: an input's in its order, a table's in the order of its slots. Values are uint8[m, width]
    where all of a batch have one width; that of a key that a delta deletes is empty.

    Raises:
        BuildError: no such path, or an empty directory.
        TableError, SequenceFileError: a malformed file.
    """
    for file in source_files(path):
        if _is_table(file):
            for keys, values in table_pairs(Table.open(str(file), in_memory=False)):
                yield keys, _as_rows(values)
        elif file.name != REPORT_NAME:
            for (keys, values), _ in open_source(file, deletions=True).byte_batches():
                yield keys, _as_rows(values)


def _as_rows(values: ByteValues) -> Values:
    widths = values.widths
    if (widths == widths[0]).all():
        return values.values.reshape(len(widths), int(widths[0]))
    return values


def _is_table(path: Path) -> bool:
    if path.is_dir():
        return False
    with path.open("rb") as file:
        return file.read(len(_TABLE_MAGIC)) == _TABLE_MAGIC
