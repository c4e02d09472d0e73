"""Training: one pass is one epoch over the rows; the next pass goes on from the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
import paddle

from examples.criteo_ctr.features import Rows

BATCH_ROWS = 128
LEARNING_RATE = 1e-3


N = TypeVar("N", bound=paddle.nn.Layer)


class Trainer(Generic[N]):
    """Owns the network and its optimizer; equal seeds and rows give equal parameters.

    Args:
        make_network: its layer takes int64[n, 26] and float32[n, 13] and gives float32[n, 2].
    """

    def __init__(self, make_network: Callable[[], N], seed: int) -> None:
        paddle.seed(seed)
        self._random = np.random.default_rng(seed)
        self.network = make_network()
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
