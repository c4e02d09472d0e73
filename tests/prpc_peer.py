"""A baidu_std server on 127.0.0.1 whose answers a test decides."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from cube_core._native import Frame, parse_frames
from cube_core.endpoint import Endpoint

T = TypeVar("T")
Answer = Callable[[Frame], bytes]

_JOIN_TIMEOUT_S = 10.0


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_JOIN_TIMEOUT_S)
        self.loop.close()


class Peer:
    """A baidu_std server. `answer` makes the bytes to send for each request and may be replaced at
    any time; `accepts = False` closes connections at once; `hold = True` keeps answers back until
    `release`."""

    def __init__(self, thread: LoopThread, answer: Answer) -> None:
        self._thread = thread
        self.answer = answer
        self.accepts = True
        self.hold = False
        self.requests_num = 0
        self.connections_num = 0
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self._connections: dict[asyncio.Transport, asyncio.Future[None]] = {}
        self._server: asyncio.Server | None = None
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    @property
    def open_connections_num(self) -> int:
        return len(self._connections)

    @property
    def held_num(self) -> int:
        return len(self._held)

    def start(self) -> None:
        """Listens, on the same port as before."""
        self._thread.run(self._start())

    def stop(self) -> None:
        """Stops listening and drops every connection, as a process that dies."""
        self._thread.run(self._stop())

    def release(self) -> None:
        """Sends what was held back, the last first."""
        self._thread.run(self._release())

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _PeerProtocol(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            # A connection that is accepted but not handed over when its server closes leaks.
            while accepting := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.gather(*accepting, return_exceptions=True)
            self._server.close()
            connections = dict(self._connections)
            for transport in connections:
                transport.abort()
            # Their sockets are closed by the loop, later.
            await asyncio.gather(*connections.values())
            await self._server.wait_closed()

    async def _release(self) -> None:
        self.hold = False
        while self._held:
            transport, data = self._held.pop()
            transport.write(data)

    def connected(self, transport: asyncio.Transport) -> None:
        self.connections_num += 1
        self._connections[transport] = asyncio.get_running_loop().create_future()
        if not self.accepts:
            transport.close()

    def disconnected(self, transport: asyncio.Transport) -> None:
        self._connections.pop(transport).set_result(None)

    def requested(self, transport: asyncio.Transport, frame: Frame) -> None:
        self.requests_num += 1
        data = self.answer(frame)
        if self.hold:
            self._held.append((transport, data))
        else:
            transport.write(data)


class _PeerProtocol(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        frames, used_bytes, _ = parse_frames(self._data + data, 64 << 20)
        self._data = (self._data + data)[used_bytes:]
        for frame in frames:
            self._peer.requested(self._transport, frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.disconnected(self._transport)
