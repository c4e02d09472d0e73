"""The Criteo CTR network: one hashed embedding table for all slots, then a dense network.

The two are layers of their own, because they are served apart: the table by the shard servers, the
dense network by the predictor.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from ctr_serving.criteo import DENSE_DIM, HASH_ROWS, SLOTS

EMBEDDING_DIM = 10
HIDDEN_UNITS = 400
HIDDEN_LAYERS = 3


class DenseNetwork(nn.Layer):
    """concat(26 vectors, dense features) -> three ReLU layers of 400 -> softmax of 2."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Layer] = []
        width = SLOTS * EMBEDDING_DIM + DENSE_DIM
        for _ in range(HIDDEN_LAYERS):
            layers += [nn.Linear(width, HIDDEN_UNITS), nn.ReLU()]
            width = HIDDEN_UNITS
        self.logits = nn.Sequential(*layers, nn.Linear(width, 2))

    def forward(self, vectors: Sequence[paddle.Tensor], dense: paddle.Tensor) -> paddle.Tensor:
        """26 x float32[n, 10], or float32[n, 260] alone, and float32[n, 13] to float32[n, 2]."""
        return nn.functional.softmax(self.logits(paddle.concat([*vectors, dense], axis=1)))


class FusedDenseNetwork(nn.Layer):
    """A dense network behind one input with the vectors of all slots side by side.

    Args:
        dense_network: whose layers it has, so that both give the same probabilities.
    """

    def __init__(self, dense_network: DenseNetwork) -> None:
        super().__init__()
        self.dense_network = dense_network

    def forward(self, vectors: paddle.Tensor, dense: paddle.Tensor) -> paddle.Tensor:
        """float32[n, 260] and float32[n, 13] to float32[n, 2]: of no click, of a click."""
        probabilities: paddle.Tensor = self.dense_network([vectors], dense)
        return probabilities


class CtrNetwork(nn.Layer):
    """The unsplit network, as it is trained: ids in, probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(
            HASH_ROWS,
            EMBEDDING_DIM,
            sparse=True,
            weight_attr=paddle.ParamAttr(initializer=nn.initializer.Uniform(-0.05, 0.05)),
        )
        self.dense_network = DenseNetwork()

    def forward(self, sparse_ids: paddle.Tensor, dense: paddle.Tensor) -> paddle.Tensor:
        """int64[n, 26] and float32[n, 13] to probabilities float32[n, 2]."""
        vectors = self.embedding(sparse_ids)
        probabilities: paddle.Tensor = self.dense_network(
            [vectors[:, slot] for slot in range(SLOTS)], dense
        )
        return probabilities
