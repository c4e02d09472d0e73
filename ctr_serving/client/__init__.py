"""Client of the CTR predictor: `CtrClient`.

    with CtrClient("127.0.0.1:8010") as client:
        probabilities = client.predict(sparse_ids, dense)

It imports no Paddle.
"""

from __future__ import annotations

from ctr_serving.client._client import PROTOCOLS, CtrClient, Protocol
from cube_core.errors import (
    ConfError,
    ConnectError,
    CubeError,
    PredictionError,
    RpcError,
    RpcTimeoutError,
    WireError,
)

__all__ = [
    "PROTOCOLS",
    "ConfError",
    "ConnectError",
    "CtrClient",
    "CubeError",
    "PredictionError",
    "Protocol",
    "RpcError",
    "RpcTimeoutError",
    "WireError",
]
