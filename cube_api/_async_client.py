"""The client for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cube_api._blocking_run import run
from cube_api._call import Ask, SeekCall
from cube_api._pool import ConnectionPool
from cube_api._result import SeekResult
from cube_api._topology import Topology
from cube_core._native import Frame
from cube_core.conf.cube_conf import DictConf
from cube_core.endpoint import Endpoint
from cube_core.errors import RpcError, SeekError
from cube_core.wire.prpc_channel import AsyncChannel, Ticket

KEYS_ON_LOOP_MAX = 16384
"""Larger batches are cut and put together in a thread, as they would hold up the loop."""


class AsyncCubeClient:
    """`CubeClient` for one event loop: any number of seeks at once, over one connection to each
    endpoint.

    Args:
        conf: path of `cube.conf`, or its dicts by name.

    Raises:
        ConfError: names the file and the field.
    """

    def __init__(self, conf: Path | str | Mapping[str, DictConf]) -> None:
        self._topology = Topology(conf)
        self._channels: dict[Endpoint, AsyncChannel] = {}
        self._pool = ConnectionPool(self._topology.connect_timeout_s)
        self._closed = False

    @property
    def dicts(self) -> Mapping[str, DictConf]:
        """The configured dicts by name."""
        return self._topology.confs

    async def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        dim: int | None = None,
        timeout_ms: int | None = None,
    ) -> SeekResult:
        """As `CubeClient.seek`; cancelling it drops what is in flight."""
        if self._closed:
            raise SeekError("the client is closed")
        begin = partial(
            SeekCall,
            self._topology.dict_named(dict_name),
            keys,
            version=version,
            dim=dim,
            timeout_ms=timeout_ms,
        )
        if np.size(keys) > KEYS_ON_LOOP_MAX:
            return await asyncio.to_thread(lambda: run(begin(), self._pool))
        call = begin()
        await _Exchange(call, self._channel).run()
        return call.result()

    async def close(self) -> None:
        """Closes its connections; seeks in flight fail with ShardError."""
        self._closed = True
        self._pool.close()
        for channel in list(self._channels.values()):
            await channel.close()

    def _channel(self, endpoint: Endpoint) -> AsyncChannel:
        channel = self._channels.get(endpoint)
        if channel is None:
            channel = self._channels[endpoint] = AsyncChannel(
                endpoint, connect_timeout_s=self._topology.connect_timeout_s
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


class _Exchange:
    """One seek's requests in flight."""

    def __init__(self, call: SeekCall, channel_to: Callable[[Endpoint], AsyncChannel]) -> None:
        self._call = call
        self._channel_to = channel_to
        self._tickets: dict[int, Ticket] = {}
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Runs the call to its end; raises what it raises."""
        self._send(self._call.start())
        if self._call.is_done:
            return
        remaining_s = self._call.deadline_s - time.monotonic()
        timer = self._done.get_loop().call_later(remaining_s, self._expire)
        try:
            await self._done
        finally:
            timer.cancel()
            for ticket in self._tickets.values():
                ticket.cancel()

    def _send(self, asks: list[Ask]) -> None:
        for ask in asks:
            self._tickets[ask.correlation_id] = self._channel_to(ask.endpoint).submit(
                ask.frame, ask.correlation_id, partial(self._take, ask)
            )

    def _take(self, ask: Ask, outcome: Frame | RpcError) -> None:
        self._tickets.pop(ask.correlation_id, None)
        if self._done.done():
            return
        try:
            self._send(self._call.on_outcome(ask, outcome))
        except Exception as error:
            self._done.set_exception(error)
        else:
            if self._call.is_done:
                self._done.set_result(None)

    def _expire(self) -> None:
        if self._done.done():
            return
        for ticket in self._tickets.values():
            ticket.expire()
        self._done.set_exception(self._call.timed_out())
