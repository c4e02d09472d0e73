"""What goes into a model by input name, how it is joined and how it is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import PredictionError


class Ragged(NamedTuple):
    """Any number of values for each instance: what Paddle's fluid age calls a LoD tensor.

    Attributes:
        values: [m, …], instance by instance.
        offsets: int64[n + 1]; the values of instance i are `values[offsets[i]:offsets[i + 1]]`.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __array__(self, *_: object, **__: object) -> NDArray[Any]:
        raise TypeError("a Ragged is no array: take its values, or pool it")


Feed = Mapping[str, NDArray[Any] | Ragged]
"""By name of the input: an array [n, …], or values in any number for each instance."""


def rows_of(feed: Feed) -> int:
    """The number of instances.

    Raises:
        PredictionError: a name is no str, values are no array, offsets do not fit their values, or
            the inputs do not agree.
    """
    counts = {name: _rows(name, value) for name, value in feed.items()}
    if len(set(counts.values())) != 1:
        raise PredictionError(f"the inputs have different numbers of instances: {counts}")
    return next(iter(counts.values()))


def signature(feed: Feed) -> tuple[Any, ...]:
    """Equal for feeds that can be joined."""
    return tuple(
        (name, isinstance(value, Ragged), _values(value).dtype, _values(value).shape[1:])
        for name, value in sorted(feed.items())
    )


def joined(feeds: Sequence[Feed]) -> Feed:
    """The instances of all feeds, which have one signature, in their order."""
    if len(feeds) == 1:
        return feeds[0]
    return {name: _joined([feed[name] for feed in feeds]) for name in feeds[0]}


def parts(feed: Feed, rows: int, rows_max: int) -> Iterator[Feed]:
    """The instances in parts of at most `rows_max`, in their order."""
    if rows <= rows_max:
        yield feed
        return
    for begin in range(0, rows, rows_max):
        end = min(begin + rows_max, rows)
        yield {name: _part(value, begin, end) for name, value in feed.items()}


def _values(value: NDArray[Any] | Ragged) -> NDArray[Any]:
    return value.values if isinstance(value, Ragged) else value


def _rows(name: str, value: NDArray[Any] | Ragged) -> int:
    # What an op of a user's feeds is of any type; behind the queue it would fail others' runs too.
    if not isinstance(name, str):
        raise PredictionError(f"input {name!r}: its name is {type(name).__name__}, not str")
    values = _values(value)
    if not isinstance(values, np.ndarray) or not values.ndim:
        what = "its values are" if isinstance(value, Ragged) else "is"
        raise PredictionError(
            f"input {name!r}: {what} {type(values).__name__}, not an array [n, …]"
        )
    if not isinstance(value, Ragged):
        return len(values)
    offsets = value.offsets
    if not isinstance(offsets, np.ndarray) or offsets.ndim != 1 or offsets.dtype.kind not in "iu":
        raise PredictionError(f"input {name!r}: its offsets are no array int64[n + 1]")
    fits = (
        len(offsets) > 0
        and offsets[0] == 0
        and offsets[-1] == len(values)
        and (offsets[1:] >= offsets[:-1]).all()
    )
    if not fits:
        raise PredictionError(
            f"input {name!r}: its offsets do not go from 0 to {len(value.values)}, ascending"
        )
    return len(offsets) - 1


def _joined(values: Sequence[NDArray[Any] | Ragged]) -> NDArray[Any] | Ragged:
    flat = np.concatenate([_values(value) for value in values])
    ragged = [value for value in values if isinstance(value, Ragged)]
    if not ragged:
        return flat
    counts = np.concatenate([np.diff(value.offsets) for value in ragged])
    return Ragged(flat, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


def _part(value: NDArray[Any] | Ragged, begin: int, end: int) -> NDArray[Any] | Ragged:
    if not isinstance(value, Ragged):
        return value[begin:end]
    offsets = value.offsets[begin : end + 1]
    return Ragged(value.values[offsets[0] : offsets[-1]], offsets - offsets[0])
