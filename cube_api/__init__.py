"""Client of the shard servers: `CubeClient` for threads, `AsyncCubeClient` for an event loop.

    with CubeClient("conf/cube.conf") as cube:
        rows, status = cube.seek("ctr_embedding", np.array([1, 2], np.uint64))

Both are thin shells that move bytes; what a seek asks, tries again and refuses is decided in one
place, `_call.py`.
"""

from __future__ import annotations

from cube_api._async_client import AsyncCubeClient
from cube_api._client import CubeClient
from cube_api._result import SeekBytesResult, SeekResult
from cube_core._native import (
    STATUS_FAILED,
    STATUS_FOUND,
    STATUS_MISSING,
    STATUS_WRONG_WIDTH,
)
from cube_core.conf.cube_conf import DictConf
from cube_core.errors import (
    ConfError,
    ConnectError,
    CubeError,
    MissingKeysError,
    RpcError,
    RpcTimeoutError,
    SeekError,
    SeekTimeoutError,
    ShardError,
    VersionNotLoadedError,
    WireError,
)

__all__ = [
    "STATUS_FAILED",
    "STATUS_FOUND",
    "STATUS_MISSING",
    "STATUS_WRONG_WIDTH",
    "AsyncCubeClient",
    "ConfError",
    "ConnectError",
    "CubeClient",
    "CubeError",
    "DictConf",
    "MissingKeysError",
    "RpcError",
    "RpcTimeoutError",
    "SeekBytesResult",
    "SeekError",
    "SeekResult",
    "SeekTimeoutError",
    "ShardError",
    "VersionNotLoadedError",
    "WireError",
]
