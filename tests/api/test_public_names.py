"""The package's public face is a promise: this list changes on purpose only."""

from __future__ import annotations

import types

import cube_api

PUBLIC_NAMES = {
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
}


def test_the_public_names() -> None:
    assert set(cube_api.__all__) == PUBLIC_NAMES
    reachable = {
        name
        for name, value in vars(cube_api).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert reachable - {"annotations"} == PUBLIC_NAMES


def test_status_numbers_are_those_of_the_wire() -> None:
    numbers = (cube_api.STATUS_FOUND, cube_api.STATUS_MISSING, cube_api.STATUS_WRONG_WIDTH)
    assert numbers == (0, -1, -2)
