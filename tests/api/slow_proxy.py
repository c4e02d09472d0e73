"""A TCP proxy on 127.0.0.1 that passes a server's answers on late."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import cast

from cube_core.endpoint import Endpoint
from tests.prpc_peer import LoopThread


class SlowProxy:
    """`delay_s` may be changed at any time."""

    def __init__(self, target: Endpoint, delay_s: float) -> None:
        self.delay_s = delay_s
        self._target = target
        self._transports: dict[asyncio.Transport, asyncio.Future[None]] = {}
        self._server: asyncio.Server | None = None
        self.endpoint = target

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Side(self), "127.0.0.1", 0)
        self.endpoint = Endpoint("127.0.0.1", self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        while self._transports:
            transports = dict(self._transports)
            for transport in transports:
                transport.abort()
            await asyncio.gather(*transports.values())
        await self._server.wait_closed()

    def opened(self, transport: asyncio.Transport) -> None:
        self._transports[transport] = asyncio.get_running_loop().create_future()

    def closed(self, transport: asyncio.Transport) -> None:
        self._transports.pop(transport).set_result(None)

    async def connect(self, side: _Side) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            await loop.create_connection(lambda: _Side(self, side), *self._target)


class _Side(asyncio.Protocol):
    """One of the two connections: of the client, or (with `other`) of the server."""

    def __init__(self, proxy: SlowProxy, other: _Side | None = None) -> None:
        self._proxy = proxy
        self._other = other
        self._is_server = other is not None
        self._waiting: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._proxy.opened(self.transport)
        if self._other is None:
            loop = asyncio.get_running_loop()
            self._connecting = loop.create_task(self._proxy.connect(self))
        else:
            self._other.joined(self)

    def joined(self, other: _Side) -> None:
        self._other = other
        waiting, self._waiting = self._waiting, []
        for data in waiting:
            other.send(data)
        if self.transport is None or self.transport.is_closing():
            other.send(b"")

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._waiting.append(data)
        elif self._is_server:
            asyncio.get_running_loop().call_later(self._proxy.delay_s, self._other.send, data)
        else:
            self._other.send(data)

    def send(self, data: bytes) -> None:
        if self.transport is None:
            return
        if data:
            self.transport.write(data)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self._proxy.closed(self.transport)
        if self._other is not None:
            self._other.send(b"")


@contextlib.contextmanager
def slow_proxy(thread: LoopThread, target: Endpoint, *, delay_s: float) -> Iterator[SlowProxy]:
    proxy = SlowProxy(target, delay_s)
    thread.run(proxy.start())
    try:
        yield proxy
    finally:
        thread.run(proxy.stop())
