"""Rows of float32 in fewer bytes, as docs/table_format.md lays them out; servers expand them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import BuildError

Quant = Literal["none", "fp16", "int8"]
QUANTS: tuple[Quant, ...] = ("none", "fp16", "int8")

_HALF_MAX = np.float32(65504)
_LEVELS = np.float32(255)
_INT8_HEAD_BYTES = 8


class Quantizer:
    """Turns the values of a pass into rows of `row_bytes`, and keeps account of the error.

    int8 rows span from their smallest to their largest element in 255 equal steps, each element
    rounded to the nearest: no other rows with that many steps have a smaller largest error. fp16
    rounds to the nearest half, what is beyond them to the largest.

    Raises:
        BuildError: `value_bytes` is no multiple of 4 (`where` named).
    """

    def __init__(self, quant: Quant, value_bytes: int, where: Path) -> None:
        self.quant = quant
        self.max_error = 0.0
        self.error_sum = 0.0
        self.element_count = 0
        if quant == "none":
            self.row_bytes = value_bytes
            return
        if value_bytes % 4:
            raise BuildError(
                f"{where}: values of {value_bytes} bytes are no float32, build with --quant=none"
            )
        dim = value_bytes // 4
        self.row_bytes = dim * 2 if quant == "fp16" else _INT8_HEAD_BYTES + dim

    @property
    def mean_error(self) -> float:
        return mean_error([self])

    def __call__(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8[n, value_bytes] of finite float32 to uint8[n, row_bytes]."""
        if self.quant == "none":
            return values
        floats = values.view("<f4")
        rows, served = (_halves if self.quant == "fp16" else _bytes)(floats)
        errors = np.abs(floats.astype(np.float64) - served)
        self.max_error = max(self.max_error, float(errors.max(initial=0.0)))
        self.error_sum += float(errors.sum())
        self.element_count += errors.size
        return rows


def mean_error(quantizers: Sequence[Quantizer]) -> float:
    """Of an element, over all that these were given."""
    elements = sum(each.element_count for each in quantizers)
    return sum(each.error_sum for each in quantizers) / elements if elements else 0.0


def _halves(floats: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    halves = np.clip(floats, -_HALF_MAX, _HALF_MAX).astype("<f2")
    return halves.view(np.uint8), halves.astype(np.float32)


def _bytes(floats: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    # A range over the largest float32 is cut: its step could not be said.
    limit = np.finfo(np.float32).max / 2
    floats = np.clip(floats, -limit, limit)
    ends = np.stack([floats.min(axis=1), floats.max(axis=1)], axis=1)
    step = ((ends[:, 1] - ends[:, 0]) / _LEVELS)[:, None]
    steps = (floats - ends[:, :1]) / np.where(step > 0, step, np.float32(1))
    levels = np.clip(np.rint(steps), 0, _LEVELS).astype(np.uint8)
    served = ends[:, :1] + levels.astype(np.float32) * step
    return np.concatenate([ends.astype("<f4").view(np.uint8), levels], axis=1), served
