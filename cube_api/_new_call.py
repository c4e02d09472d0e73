"""The seeks there are: for rows of one width, and for bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_api._answers import ByteAnswers, RowAnswers
from cube_api._call import SeekCall
from cube_api._options import SeekOptions
from cube_api._result import SeekBytesResult, SeekResult
from cube_api._topology import DictTopology
from cube_core._native import SeekPlan


def rows_call(
    target: DictTopology, keys: NDArray[np.uint64] | NDArray[np.int64], options: SeekOptions
) -> SeekCall[SeekResult]:
    """A seek for rows of float32.

    Args:
        keys: uint64[n] or int64[n]; negative ids stand for their two's complement.

    Raises:
        TypeError: keys of another type.
        ValueError: keys that are no vector.
    """
    keys = as_uint64(keys)
    plan = SeekPlan(keys, target.shard_num)
    answers = RowAnswers(target, keys, plan, options)
    return SeekCall(target, plan, _first_of(keys), options, answers)


def bytes_call(
    target: DictTopology, keys: NDArray[np.uint64] | NDArray[np.int64], options: SeekOptions
) -> SeekCall[SeekBytesResult]:
    """A seek for values of any width; as `rows_call`."""
    keys = as_uint64(keys)
    plan = SeekPlan(keys, target.shard_num)
    return SeekCall(target, plan, _first_of(keys), options, ByteAnswers(keys, plan, options))


def _first_of(keys: NDArray[np.uint64]) -> int:
    return int(keys[0]) if len(keys) else 0


def as_uint64(keys: NDArray[Any]) -> NDArray[np.uint64]:
    """Keys as they go over the wire.

    Raises:
        TypeError, ValueError: as `rows_call`.
    """
    if not isinstance(keys, np.ndarray) or keys.dtype not in (np.uint64, np.int64):
        kind = keys.dtype if isinstance(keys, np.ndarray) else type(keys).__name__
        raise TypeError(f"keys must be a numpy array of uint64 or int64, not {kind}")
    if keys.ndim != 1:
        raise ValueError(f"keys must be a vector, not of shape {keys.shape}")
    return np.ascontiguousarray(keys).view(np.uint64)
