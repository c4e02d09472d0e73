"""Training: one pass is one epoch over the rows; the next pass goes on from the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import paddle
from numpy.typing import NDArray

from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.network import CtrNetwork

BATCH_ROWS = 128
LEARNING_RATE = 1e-3
EVALUATION_BATCH_ROWS = 4096


@dataclass(frozen=True)
class Quality:
    """How well probabilities fit labels: log loss in nats a row; auc is 0.5 when one class only."""

    auc: float
    log_loss: float


class Trainer:
    """Owns the network and its optimizer; equal seeds and rows give equal parameters."""

    def __init__(self, seed: int) -> None:
        paddle.seed(seed)
        self._random = np.random.default_rng(seed)
        self.network = CtrNetwork()
        # lazy_mode touches only the table rows of the batch, not all million of them.
        self._optimizer = paddle.optimizer.Adam(
            LEARNING_RATE, parameters=self.network.parameters(), lazy_mode=True
        )

    def train_pass(
        self, rows: Rows, on_rows: Callable[[int], object] = lambda row_count: None
    ) -> None:
        """One epoch in random order; `on_rows` hears the number of rows of every step."""
        self.network.train()
        order = self._random.permutation(len(rows))
        for begin in range(0, len(rows), BATCH_ROWS):
            batch = rows.take(order[begin : begin + BATCH_ROWS])
            self._step(batch)
            on_rows(len(batch))

    def _step(self, batch: Rows) -> None:
        probabilities = self.network(
            paddle.to_tensor(batch.sparse_ids), paddle.to_tensor(batch.dense)
        )
        loss = paddle.nn.functional.cross_entropy(
            probabilities, paddle.to_tensor(batch.labels), use_softmax=False
        )
        loss.backward()
        self._optimizer.step()
        self._optimizer.clear_grad()

    def predict(self, rows: Rows) -> NDArray[np.float32]:
        """Probabilities float32[n, 2] of the unsplit network."""
        self.network.eval()
        parts = []
        with paddle.no_grad():
            for begin in range(0, len(rows), EVALUATION_BATCH_ROWS):
                batch = rows.take(np.arange(begin, min(begin + EVALUATION_BATCH_ROWS, len(rows))))
                parts.append(
                    self.network(
                        paddle.to_tensor(batch.sparse_ids), paddle.to_tensor(batch.dense)
                    ).numpy()
                )
        return np.concatenate(parts)


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
