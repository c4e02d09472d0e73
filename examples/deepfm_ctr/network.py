"""DeepFM: a first-order term, a factorization machine and a deep network over the same ids.

Two tables, because they are served as two dicts: a weight of width 1 and a vector of width 10 for
every id. What is left is the dense network, which the predictor runs.
"""

from __future__ import annotations

import paddle
from paddle import nn

from ctr_serving.criteo import DENSE_DIM, HASH_ROWS, SLOTS

EMBEDDING_DIM = 10
FIRST_ORDER_DIM = 1
HIDDEN_UNITS = 128
HIDDEN_LAYERS = 2


class DenseDeepFm(nn.Layer):
    """What is behind the tables."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Layer] = []
        width = SLOTS * EMBEDDING_DIM + DENSE_DIM
        for _ in range(HIDDEN_LAYERS):
            layers += [nn.Linear(width, HIDDEN_UNITS), nn.ReLU()]
            width = HIDDEN_UNITS
        self.deep = nn.Sequential(*layers, nn.Linear(width, 1))
        self.dense_first_order = nn.Linear(DENSE_DIM, 1)

    def forward(
        self, vectors: paddle.Tensor, weights: paddle.Tensor, dense: paddle.Tensor
    ) -> paddle.Tensor:
        """Vectors float32[n, 260], weights float32[n, 26] and dense values float32[n, 13], slot by
        slot, to probabilities float32[n, 2]: of no click, of a click."""
        first_order = weights.sum(axis=1, keepdim=True) + self.dense_first_order(dense)
        by_slot = vectors.reshape([-1, SLOTS, EMBEDDING_DIM])
        square_of_sum = by_slot.sum(axis=1).square()
        sum_of_squares = by_slot.square().sum(axis=1)
        second_order = 0.5 * (square_of_sum - sum_of_squares).sum(axis=1, keepdim=True)
        deep = self.deep(paddle.concat([vectors, dense], axis=1))
        half = 0.5 * (first_order + second_order + deep)
        # The sigmoid of their sum, as a softmax of two.
        return nn.functional.softmax(paddle.concat([-half, half], axis=1))


class DeepFm(nn.Layer):
    """The unsplit network, as it is trained: ids in, probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = _table(EMBEDDING_DIM, scale=0.05)
        self.first_order = _table(FIRST_ORDER_DIM, scale=0.01)
        self.dense_network = DenseDeepFm()

    def forward(self, sparse_ids: paddle.Tensor, dense: paddle.Tensor) -> paddle.Tensor:
        """int64[n, 26] and float32[n, 13] to probabilities float32[n, 2]."""
        vectors = self.embedding(sparse_ids).reshape([-1, SLOTS * EMBEDDING_DIM])
        weights = self.first_order(sparse_ids).reshape([-1, SLOTS])
        probabilities: paddle.Tensor = self.dense_network(vectors, weights, dense)
        return probabilities


def _table(dim: int, scale: float) -> nn.Embedding:
    return nn.Embedding(
        HASH_ROWS,
        dim,
        sparse=True,
        weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-scale, scale)),
    )
