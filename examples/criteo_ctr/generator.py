"""Criteo-format rows drawn from a planted click model.

Ids of every slot follow Zipf's law over a vocabulary of the slot's own size; a click is drawn from
a logistic model over the ids' planted weights and the logarithms of the counts. What can be learnt
is therefore known: the planted probabilities give the best AUC and log loss there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctr_serving.criteo import DENSE_DIM, SLOTS

_ZIPF_EXPONENT = 1.1
_VOCABULARY_MIN = 10
_VOCABULARY_MAX = 100_000
_MISSING_RATE = 0.08
_CLICK_RATE = 0.25
_LOGIT_DEVIATION = 1.6
_DENSE_SHARE = 0.3


@dataclass(frozen=True)
class PlantedRows:
    """Rows with the probability they were drawn with.

    Args:
        counts: int64[n, 13], -1 where missing.
        ranks: int64[n, 26], the id's rank in its slot's vocabulary, -1 where missing.
        labels: int64[n], 1 = click.
        probabilities: float64[n], planted probability of a click.
    """

    counts: NDArray[np.int64]
    ranks: NDArray[np.int64]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]


def draw_rows(row_count: int, seed: int) -> PlantedRows:
    """Draws rows; equal arguments give equal rows.

    Raises:
        ValueError: row_count is not positive.
    """
    if row_count <= 0:
        raise ValueError(f"row_count is {row_count}; at least 1 row is needed")
    random = np.random.default_rng(seed)
    counts, dense_logit = _draw_counts(random, row_count)
    ranks, sparse_logit = _draw_ids(random, row_count)
    spread = _LOGIT_DEVIATION * (
        np.sqrt(_DENSE_SHARE) * dense_logit + np.sqrt(1 - _DENSE_SHARE) * sparse_logit
    )
    probabilities = _sigmoid(spread + _bias(spread))
    labels = (random.random(row_count) < probabilities).astype(np.int64)
    return PlantedRows(counts, ranks, labels, probabilities)


def write_rows(path: Path, rows: PlantedRows) -> None:
    """Writes tab-separated `label I1..I13 C1..C26`, an empty field for a missing one."""
    counts = np.where(rows.counts < 0, "", rows.counts.astype(np.str_))
    lines = (
        "\t".join((str(label), *count, *ids))
        for label, count, ids in zip(
            rows.labels.tolist(), counts.tolist(), _id_text(rows.ranks), strict=True
        )
    )
    path.write_text("\n".join(lines) + "\n", encoding="ascii")


def _draw_counts(
    random: np.random.Generator, row_count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Log-normal counts int64[n, 13] and their part of the logit, of variance 1."""
    scale = random.uniform(0.5, 4.0, DENSE_DIM)
    logarithms = np.abs(random.normal(scale, 1.0, (row_count, DENSE_DIM)))
    counts = np.expm1(logarithms).astype(np.int64)
    missing = random.random(counts.shape) < _MISSING_RATE
    weights = random.normal(0.0, 1.0, DENSE_DIM)
    effects = np.where(missing, 0.0, (logarithms - scale) * weights)
    return np.where(missing, -1, counts), effects.sum(axis=1) / np.linalg.norm(weights)


def _draw_ids(
    random: np.random.Generator, row_count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Zipf-distributed ranks int64[n, 26] and their part of the logit, of variance about 1."""
    sizes = np.geomspace(_VOCABULARY_MIN, _VOCABULARY_MAX, SLOTS).astype(np.int64)
    ranks = np.empty((row_count, SLOTS), np.int64)
    logit = np.zeros(row_count)
    for slot, size in enumerate(random.permutation(sizes)):
        mass = np.cumsum(1.0 / np.arange(1, size + 1) ** _ZIPF_EXPONENT)
        drawn = np.searchsorted(mass, random.random(row_count) * mass[-1])
        missing = random.random(row_count) < _MISSING_RATE
        weights = random.normal(0.0, 1.0, size)
        logit += np.where(missing, 0.0, weights[drawn])
        ranks[:, slot] = np.where(missing, -1, drawn)
    return ranks, logit / np.sqrt(SLOTS)


def _id_text(ranks: NDArray[np.int64]) -> list[list[str]]:
    """Eight hexadecimal digits an id, as Criteo's are; another text for each slot and rank."""
    slots = np.arange(SLOTS)
    # An odd factor is a bijection of 32 bits, so no two ids fall together.
    mixed = ((ranks * SLOTS + slots + 1) * 2_654_435_761) & 0xFFFFFFFF
    missing = ranks < 0
    return [
        ["" if gone else f"{value:08x}" for gone, value in zip(gone_row, row, strict=True)]
        for gone_row, row in zip(missing.tolist(), mixed.tolist(), strict=True)
    ]


def _bias(spread: NDArray[np.float64]) -> float:
    """The logit that makes the mean probability the click rate, found by bisection."""
    low, high = -20.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        if _sigmoid(spread + middle).mean() < _CLICK_RATE:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _sigmoid(logit: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))
