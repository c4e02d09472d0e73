"""What a patch changes: keys with a new value, and keys that go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ONE_WIDTH, Source
from cube_core.errors import BuildError


class Changes(NamedTuple):
    """Some changes, in their order.

    Attributes:
        keys: uint64[m].
        values: uint8[m, width]; zeros where a key goes.
        deleted: bool[m].
    """

    keys: NDArray[np.uint64]
    values: NDArray[np.uint8]
    deleted: NDArray[np.bool_]


def changes_of(source: Source) -> Iterator[tuple[Changes, int]]:
    """The changes of a source of values of one width, opened for its deletions, and the bytes of it
    consumed so far.

    Raises:
        BuildError: a value of another width (key named).
    """
    for (keys, values), offset in source.byte_batches():
        widths = values.widths
        deleted = widths == 0
        others = np.flatnonzero(~deleted & (widths != source.value_bytes))
        if len(others):
            raise BuildError(
                f"{source.path}: key {keys[others[0]]}: a value of {widths[others[0]]} bytes; the "
                f"file's first has {source.value_bytes}; {ONE_WIDTH}"
            )
        rows = np.zeros((len(keys), source.value_bytes), np.uint8)
        if len(values.values):
            rows[~deleted] = values.values.reshape(-1, source.value_bytes)
        yield Changes(keys, rows, deleted), offset


def with_mark(rows: NDArray[np.uint8], deleted: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """uint8[m, row + 1]: a row each, and after it 1 where the key goes.

    Args:
        rows: uint8[k, row], of the keys that stay.
        deleted: bool[m].
    """
    marked = np.zeros((len(deleted), rows.shape[1] + 1), np.uint8)
    marked[~deleted, :-1] = rows
    marked[:, -1] = deleted
    return marked


def without_mark(marked: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """What `with_mark` was given: uint8[k, row] and bool[m]."""
    deleted = marked[:, -1] != 0
    return np.ascontiguousarray(marked[~deleted, :-1]), deleted


def finally_deleted(keys: NDArray[np.uint64], deleted: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Of uint64[n] keys with repetitions, those whose last change deletes them."""
    if not deleted.any():
        return np.empty(0, np.uint64)
    ordered, from_end = np.unique(keys[::-1], return_index=True)
    return ordered[deleted[::-1][from_end]]
