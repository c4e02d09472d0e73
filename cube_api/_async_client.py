"""The client for an event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cube_api._alarm import Alarm
from cube_api._blocking_run import run
from cube_api._call import SeekCall
from cube_api._directory import Directory
from cube_api._exchange import Exchange
from cube_api._new_call import bytes_call, rows_call
from cube_api._options import (
    OnFailure,
    OnMissing,
    OnMissingBytes,
    SeekOptions,
    policy_of_bytes,
)
from cube_api._plain_seek import PlainSeek
from cube_api._pool import ConnectionPool
from cube_api._result import SeekBytesResult, SeekResult
from cube_api._spin import Spin
from cube_api._topology import DictTopology, Topology
from cube_core.conf.cube_conf import DictConf
from cube_core.endpoint import Endpoint
from cube_core.errors import SeekError
from cube_core.wire.prpc_channel import AsyncChannel

R = TypeVar("R")

_pinned_options = functools.lru_cache(
    lambda version, dim, timeout_ms, on_failure: SeekOptions(
        version, dim, timeout_ms, "zeros", on_failure
    )
)
"""Checking options takes longer than finding those that were checked before."""

KEYS_ON_LOOP_MAX = 16384
"""Larger batches are cut and put together in a thread, as they would hold up the loop."""


class AsyncCubeClient:
    """`CubeClient` for one event loop: any number of seeks at once, over one connection to each
    endpoint.

    Args:
        conf: path of `cube.conf`, which is watched, or its dicts by name.
        spin_us: for how long at most a pinned seek keeps the loop awake, so that answers which come
            within it need not wake the process. What the loop has to do goes first, and while
            servers take longer nothing is spun for. 0: not at all.

    Raises:
        ConfError: names the file and the field.
    """

    def __init__(self, conf: Path | str | Mapping[str, DictConf], *, spin_us: int = 0) -> None:
        self._directory = Directory(conf)
        self._adopted = self._directory.topology
        self._channels: dict[Endpoint, AsyncChannel] = {}
        self._pool = ConnectionPool(self._adopted)
        self._alarm = Alarm()
        self._spin = Spin(spin_us)
        self._closed = False

    @property
    def dicts(self) -> Mapping[str, DictConf]:
        """The configured dicts by name."""
        return self._directory.topology.confs

    async def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        dim: int | None = None,
        timeout_ms: int | None = None,
        on_missing: OnMissing = "zeros",
        on_failure: OnFailure = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        """As `CubeClient.seek`; cancelling it drops what is in flight."""
        target = self._dict_named(dict_name)
        is_small = isinstance(keys, np.ndarray) and 0 < keys.size <= KEYS_ON_LOOP_MAX
        is_plain = isinstance(on_missing, str) and on_missing == "zeros"
        if version and dim and is_small and is_plain:
            options = _pinned_options(version, dim, timeout_ms, on_failure)
            seek = PlainSeek(target, keys, options, self._channel, self._alarm, self._spin, log_id)
            return await seek.run()
        options = SeekOptions(version, dim, timeout_ms, on_missing, on_failure, log_id)
        begin = partial(rows_call, target, keys, options)
        return await self._run(begin, np.size(keys))

    async def seek_bytes(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        timeout_ms: int | None = None,
        on_missing: OnMissingBytes = "empty",
        on_failure: OnFailure = "raise",
        log_id: int = 0,
    ) -> SeekBytesResult:
        """As `CubeClient.seek_bytes`; cancelling it drops what is in flight."""
        policy = policy_of_bytes(on_missing)
        options = SeekOptions(version, None, timeout_ms, policy, on_failure, log_id)
        begin = partial(bytes_call, self._dict_named(dict_name), keys, options)
        return await self._run(begin, np.size(keys))

    async def _run(self, begin: Callable[[], SeekCall[R]], keys_num: int) -> R:
        if keys_num > KEYS_ON_LOOP_MAX:
            return await asyncio.to_thread(lambda: run(begin(), self._pool))
        call = begin()
        await Exchange(call, self._channel).run()
        return call.result()

    async def close(self) -> None:
        """Closes its connections; seeks in flight fail with ShardError."""
        self._closed = True
        self._directory.close()
        self._pool.close()
        self._alarm.cancel()
        for channel in list(self._channels.values()):
            await channel.close()

    def _dict_named(self, name: str) -> DictTopology:
        if self._closed:
            raise SeekError("the client is closed")
        return self._topology().dict_named(name)

    def _topology(self) -> Topology:
        topology = self._directory.topology
        if topology is not self._adopted:
            kept = topology.connected_alike(self._adopted)
            self._adopted = topology
            self._pool.adopt(topology)
            for endpoint in self._channels.keys() - kept:
                self._channels.pop(endpoint).retire()
        return topology

    def _channel(self, endpoint: Endpoint) -> AsyncChannel:
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = self._channels[endpoint] = AsyncChannel(
                endpoint,
                connect_timeout_s=self._adopted.connect_timeout_s,
                tls=self._adopted.tls_of(endpoint),
            )
        return channel

    async def __aenter__(self) -> AsyncCubeClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
