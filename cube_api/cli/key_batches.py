"""Batches of keys to ask for, drawn before the clock starts."""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import NDArray

_BATCHES_MAX = 1024
_DRAWN_KEYS_MAX = 1 << 24


class Distribution(str, Enum):
    """How keys are drawn from 0 to key_space - 1."""

    UNIFORM = "uniform"
    ZIPF = "zipf"


def draw_batches(
    distribution: Distribution,
    *,
    key_space: int,
    batch: int,
    zipf_exponent: float,
    seed: int,
) -> NDArray[np.uint64]:
    """Keys below `key_space`, uint64[batches, batch], to be asked for over and over."""
    random = np.random.default_rng(seed)
    batches_num = max(1, min(_BATCHES_MAX, _DRAWN_KEYS_MAX // batch))
    count = batches_num * batch
    if distribution is Distribution.UNIFORM:
        keys = random.integers(0, key_space, count, dtype=np.uint64)
    else:
        keys = zipf(random, count, key_space, zipf_exponent)
    return keys.reshape(batches_num, batch)


def zipf(
    random: np.random.Generator, count: int, key_space: int, exponent: float
) -> NDArray[np.uint64]:
    """uint64[count] of which key k has probability proportional to (k + 1) ** -exponent.

    By rejection-inversion (Hörmann and Derflinger, 1996): exact, and without a table of
    `key_space` entries.

    Args:
        exponent: over 0; 1 is Zipf's own law, 0.99 what key-value benchmarks use.
    """
    # Next to 1 the area under x ** -exponent is a logarithm; this is as near as it gets.
    rest = 1 - exponent if abs(1 - exponent) > 1e-9 else 1e-9

    def area(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.expm1(rest * np.log(x)) / rest)

    def inverse(u: NDArray[np.float64]) -> NDArray[np.float64]:
        with np.errstate(divide="ignore", over="ignore"):  # beyond any key space
            return np.asarray(np.exp(np.log1p(rest * u) / rest))

    low, high = area(np.array([1.5, key_space + 0.5])) - np.array([1.0, 0.0])
    drawn: list[NDArray[np.uint64]] = []
    missing = count
    while missing > 0:
        under = random.uniform(low, high, missing + 16)
        rank = np.clip(np.rint(inverse(under)), 1, key_space)
        ranks = rank[under >= area(rank + 0.5) - rank**-exponent][:missing]
        drawn.append(ranks.astype(np.uint64) - np.uint64(1))
        missing -= len(ranks)
    return np.concatenate(drawn)
