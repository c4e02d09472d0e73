"""How well predicted probabilities fit the clicks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Quality:
    """How well probabilities fit labels: log loss in nats a row; auc is 0.5 when one class only."""

    auc: float
    log_loss: float


def quality(labels: NDArray[np.int64], click_probabilities: NDArray[np.floating]) -> Quality:
    """AUC and log loss of probabilities[n] for labels[n] (1 = click)."""
    clipped = np.clip(click_probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
    log_loss = -np.where(labels == 1, np.log(clipped), np.log1p(-clipped)).mean()
    return Quality(_auc(labels, clipped), float(log_loss))


def _auc(labels: NDArray[np.int64], scores: NDArray[np.float64]) -> float:
    """Chance that a click scores above a non-click; ties count half."""
    clicks = int((labels == 1).sum())
    others = len(labels) - clicks
    if not clicks or not others:
        return 0.5
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = mean_ranks[inverse][labels == 1].sum()
    return float((rank_sum - clicks * (clicks + 1) / 2) / (clicks * others))
