"""Clients of the CTR predictor: `CtrClient` for threads, `AsyncCtrClient` for an event loop.

    with CtrClient("127.0.0.1:8010") as client:
        probabilities = client.predict(sparse_ids, dense)

It imports no Paddle.
"""

from __future__ import annotations

from ctr_serving.client._answer import PROTOCOLS, Answer, Protocol
from ctr_serving.client._async_client import AsyncCtrClient
from ctr_serving.client._client import CtrClient
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
    "Answer",
    "AsyncCtrClient",
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
