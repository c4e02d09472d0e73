"""Labelled Criteo rows as the trainer takes them.

Fields become features by `ctr_serving.criteo`, the same code that the client uses: trainer and
client must agree on every position and hash, or the network answers for other ids than were asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctr_serving.criteo import read_rows
from cube_core.errors import FormatError

_HOLD_OUT_SHARE = 10


@dataclass(frozen=True)
class Rows:
    """Features and labels of n rows.

    Args:
        sparse_ids: int64[n, 26], from 0 to 1,000,000.
        dense: float32[n, 13].
        labels: int64[n], 1 = click.
    """

    sparse_ids: NDArray[np.int64]
    dense: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sparse_ids)

    def take(self, chosen: slice | NDArray[np.int64]) -> Rows:
        """The chosen rows, in that order."""
        return Rows(self.sparse_ids[chosen], self.dense[chosen], self.labels[chosen])

    def held_out(self) -> tuple[Rows, Rows]:
        """Rows to train on, and every tenth row to evaluate on."""
        is_test = np.arange(len(self)) % _HOLD_OUT_SHARE == _HOLD_OUT_SHARE - 1
        return self.take(np.flatnonzero(~is_test)), self.take(np.flatnonzero(is_test))


def read_training_rows(path: Path, rows_max: int | None = None) -> Rows:
    """Reads Criteo rows with labels: csv with a header, or tsv.

    Raises:
        FormatError: names file and line of a malformed row; also when there are no labels.
        OSError: the file cannot be read.
    """
    rows = read_rows(path, rows_max)
    if rows.labels is None:
        raise FormatError(f"{path}: has no column Label; training needs clicks (0 or 1)")
    return Rows(rows.sparse_ids, rows.dense, rows.labels)
