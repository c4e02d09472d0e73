"""Rows of a pass, as they are set aside for the table of their shard."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import Source, Values
from cube_builder.changes import changes_of, with_mark
from cube_builder.checks import require_finite
from cube_builder.job import BuildJob
from cube_builder.quantize import Quantizer

MARK_BYTES = 1
"""In a delta, a row is followed by a byte that says whether its key goes."""


def row_bytes(job: BuildJob, quantizer: Quantizer) -> int:
    """Width of a row as it is set aside; 0 where values have a width each."""
    if job.is_variable:
        return 0
    return quantizer.row_bytes + (MARK_BYTES if job.delta else 0)


def pass_rows(
    job: BuildJob, source: Source, quantizer: Quantizer, where: str = ""
) -> Iterator[tuple[tuple[NDArray[np.uint64], Values], int]]:
    """Keys uint64[m] and rows uint8[m, row_bytes] of a source, or values with a width each, and the
    bytes of it consumed so far.

    Args:
        where: the source's name in errors, if not its path.

    Raises:
        BuildError: an element that is not finite, if the job refuses those.
    """
    where = where or str(source.path)
    if job.is_variable:
        for (keys, byte_values), offset in source.byte_batches():
            if job.on_nonfinite == "error":
                require_finite(where, keys, byte_values)
            yield (keys, byte_values), offset
        return
    if not job.delta:
        for (keys, values), offset in source.batches():
            if job.on_nonfinite == "error":
                require_finite(where, keys, values)
            yield (keys, quantizer(values)), offset
        return
    for changes, offset in changes_of(source):
        stays = ~changes.deleted
        rows = np.empty((0, quantizer.row_bytes), np.uint8)
        if stays.any():
            values = changes.values[stays]
            if job.on_nonfinite == "error":
                require_finite(where, changes.keys[stays], values)
            rows = quantizer(values)
        yield (changes.keys, with_mark(rows, changes.deleted)), offset
