"""Several vectors of an instance to one."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ctr_serving.feeds import Ragged

Pooling = Literal["sum", "mean"]


def pooled(vectors: Ragged, how: Pooling) -> NDArray[np.float32]:
    """float32[n, dim], the sum or the mean of each instance's vectors float32[m, dim]; zeros where
    an instance has none."""
    values, offsets = vectors
    counts = np.diff(offsets)
    if len(values) == len(counts) and (counts == 1).all():
        return values
    result = np.zeros((len(counts), *values.shape[1:]), np.float32)
    present = counts > 0
    if present.any():
        # Where instances without vectors are left out, each sum ends where the next begins.
        result[present] = np.add.reduceat(values, offsets[:-1][present], axis=0)
    if how == "mean":
        result /= np.maximum(counts, 1).astype(np.float32)[:, None]
    return result
