"""How many rows are run where some happen to be joined."""

from __future__ import annotations

from collections import Counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

N = TypeVar("N", bound=np.generic)

_ROWS_MULTIPLE = 8
_OFTEN = 200


class JoinedSizes:
    """Of one model.

    Args:
        rows_max: more rows are run in parts.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self._asked: Counter[int] = Counter()

    def rows_to_run(self, rows_num: int, onednn_rows_min: int) -> int:
        """The number of rows to run instead of so many that happen to be joined: a row of zeros
        more costs some 4 µs, but what oneDNN prepares for a number of rows some 2 ms. A number that
        comes again and again is run as it is.

        Args:
            onednn_rows_min: rows from which oneDNN runs them.
        """
        more = -rows_num % _ROWS_MULTIPLE
        if not more or rows_num < onednn_rows_min or rows_num > self._rows_max:
            return rows_num
        self._asked[rows_num] += 1
        return rows_num if self._asked[rows_num] > _OFTEN else rows_num + more


def padded(values: NDArray[N], rows_num: int) -> NDArray[N]:
    """[n, …] with rows of zeros up to so many."""
    if rows_num <= len(values):
        return values
    zeros = np.zeros((rows_num - len(values), *values.shape[1:]), values.dtype)
    return np.concatenate([values, zeros])
