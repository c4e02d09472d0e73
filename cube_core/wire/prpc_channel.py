"""Client side of baidu_std on an event loop: one connection, many requests in flight."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import cast

from cube_core._native import Frame, encode_request_frame, next_correlation_id
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError, WireError
from cube_core.tls import ClientTls
from cube_core.wire.frame_reader import FRAME_BYTES_MAX, FrameReader

CONNECT_TIMEOUT_S = 1.0
WRITE_BUFFER_BYTES_MAX = 64 << 20
"""Requests a peer may leave unread before further ones fail."""

OVERCROWDED_CODE = 1011
"""brpc's EOVERCROWDED: too much is waiting to be sent on the connection."""

Receiver = Callable[[Frame | RpcError], None]
"""Takes the answer to a request, or why there is none; called once, on the event loop."""


def error_of(frame: Frame, endpoint: Endpoint, what: str) -> RpcError:
    """The error that an error frame stands for.

    Args:
        what: what was asked for, such as "DictService.seek".
    """
    return RpcError(f"{endpoint}: {what}: {frame.error_text}", frame.error_code)


class AsyncChannel:
    """Requests to one endpoint over one connection, answered in any order.

    Connects with the first request and again with the next one after the connection was lost.
    Belongs to the event loop that first uses it.

    Args:
        connect_timeout_s: after it, requests that wait for the connection fail with ConnectError.
        frame_bytes_max: largest body of an answer.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        tls: ClientTls | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._frame_bytes_max = frame_bytes_max
        self._current: _Connection | None = None
        self._open: set[_Connection] = set()
        self._closed = False

    async def call(
        self,
        service: str,
        method: str,
        payload: bytes | memoryview,
        *,
        timeout_s: float,
        attachment: bytes | memoryview = b"",
        log_id: int = 0,
    ) -> Frame:
        """Calls a method and returns its response frame.

        Raises:
            ConnectError: no connection, it was lost before the answer, or the peer sent what is
                no frame.
            RpcTimeoutError: no answer within `timeout_s`.
            RpcError: the peer answered with an error; carries its code.
        """
        correlation_id = next_correlation_id()
        frame = encode_request_frame(
            service,
            method,
            correlation_id,
            payload,
            attachment=attachment,
            timeout_ms=max(1, round(timeout_s * 1000)),
            log_id=log_id,
        )
        answer = await self.send_frame(frame, correlation_id, timeout_s=timeout_s)
        if answer.error_code:
            raise error_of(answer, self.endpoint, f"{service}.{method}")
        return answer

    async def send_frame(self, frame: bytes, correlation_id: int, *, timeout_s: float) -> Frame:
        """Sends a request frame and returns the answer to `correlation_id`, error frames too.

        Raises:
            ConnectError, RpcTimeoutError: as `call`.
        """
        answered: asyncio.Future[Frame] = asyncio.get_running_loop().create_future()
        ticket = self.submit(frame, correlation_id, partial(_settle, answered))
        timer = answered.get_loop().call_later(timeout_s, self._expire, ticket, answered, timeout_s)
        try:
            return await answered
        finally:
            timer.cancel()
            ticket.cancel()

    def submit(self, frame: bytes, correlation_id: int, receiver: Receiver) -> Ticket:
        """Sends a request frame without waiting; `receiver` gets the answer later, never before
        `submit` returned."""
        connection = self._current
        if connection is None:
            connection = _Connection(self, self._frame_bytes_max, self._tls)
            if self._closed:
                connection.fail(self._closed_error())
            else:
                self._current = connection
                self._open.add(connection)
                connection.start(self._connect_timeout_s)
        connection.submit(frame, correlation_id, receiver)
        return Ticket(connection, correlation_id)

    def retire(self) -> None:
        """Closes the connection as soon as nothing is in flight on it; a later request would make
        a new one."""
        if self._current is not None:
            self._current.retire()

    async def close(self) -> None:
        """Closes the connections for good; requests in flight fail with ConnectError."""
        self._closed = True
        for connection in list(self._open):
            connection.fail(self._closed_error())
            await connection.closed()

    def _closed_error(self) -> ConnectError:
        return ConnectError(f"{self.endpoint}: the channel is closed")

    def _expire(self, ticket: Ticket, answered: asyncio.Future[Frame], timeout_s: float) -> None:
        ticket.expire()
        _settle(
            answered,
            RpcTimeoutError(f"{self.endpoint}: no answer within {timeout_s * 1000:.0f} ms"),
        )

    def _retire(self, connection: _Connection) -> None:
        if self._current is connection:
            self._current = None

    def _forget(self, connection: _Connection) -> None:
        self._retire(connection)
        self._open.discard(connection)


class Ticket:
    """A request in flight; its answer is dropped once nobody waits for it."""

    __slots__ = ("_connection", "_correlation_id")

    def __init__(self, connection: _Connection, correlation_id: int) -> None:
        self._connection = connection
        self._correlation_id = correlation_id

    def cancel(self) -> None:
        """Nobody waits for the answer any more; no matter when it is already there."""
        self._connection.drop(self._correlation_id, timed_out=False)

    def expire(self) -> None:
        """As `cancel`, because the answer did not come in time. A connection that answered nothing
        at all since the request takes no new ones: its peer may be gone without a word."""
        self._connection.drop(self._correlation_id, timed_out=True)


class _Connection(asyncio.Protocol):
    """One TCP connection of a channel, from before it is made until it is lost."""

    def __init__(self, channel: AsyncChannel, frame_bytes_max: int, tls: ClientTls | None) -> None:
        self._channel = channel
        self._tls = tls
        self._reader = FrameReader(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._unsent: list[bytes] = []
        # Receiver, and how many frames had been received when its request was sent.
        self._pending: dict[int, tuple[Receiver, int]] = {}
        self._frames_received = 0
        self._retired = False
        self._error: RpcError | None = None
        self._lost = asyncio.get_running_loop().create_future()

    def start(self, connect_timeout_s: float) -> None:
        self._connecting = asyncio.get_running_loop().create_task(self._connect(connect_timeout_s))

    async def _connect(self, timeout_s: float) -> None:
        endpoint = self._channel.endpoint
        loop = asyncio.get_running_loop()
        try:
            await asyncio.wait_for(self._open(loop, endpoint), timeout_s)
        except asyncio.TimeoutError:
            self._connecting = None
            self.fail(ConnectError(f"{endpoint}: no connection within {timeout_s * 1000:.0f} ms"))
        except (OSError, ValueError) as error:
            self._connecting = None
            self.fail(ConnectError(f"{endpoint}: no connection: {error}"))

    async def _open(self, loop: asyncio.AbstractEventLoop, endpoint: Endpoint) -> None:
        if self._tls is None:
            await loop.create_connection(lambda: self, endpoint.host, endpoint.port)
            return
        await loop.create_connection(
            lambda: self,
            endpoint.host,
            endpoint.port,
            ssl=self._tls.context(),
            server_hostname=self._tls.name_of(endpoint.host),
        )

    def submit(self, frame: bytes, correlation_id: int, receiver: Receiver) -> None:
        self._pending[correlation_id] = (receiver, self._frames_received)
        if self._error is not None:
            self._deliver_soon(correlation_id, self._error)
        elif self._transport is None:
            self._unsent.append(frame)
        elif self._transport.get_write_buffer_size() > WRITE_BUFFER_BYTES_MAX:
            problem = RpcError(
                f"{self._channel.endpoint}: over WRITE_BUFFER_BYTES_MAX={WRITE_BUFFER_BYTES_MAX}"
                " bytes of requests wait to be read by it",
                OVERCROWDED_CODE,
            )
            self._deliver_soon(correlation_id, problem)
        else:
            self._transport.write(frame)

    def drop(self, correlation_id: int, *, timed_out: bool) -> None:
        pending = self._pending.pop(correlation_id, None)
        if timed_out and pending is not None and pending[1] == self._frames_received:
            self.retire()
        else:
            self._close_if_unused()

    def retire(self) -> None:
        """Takes no new requests; is closed once none is in flight."""
        self._retired = True
        self._channel._retire(self)
        self._close_if_unused()

    def fail(self, error: RpcError) -> None:
        """Ends the connection; every pending request gets `error`."""
        self._error = error
        self._channel._forget(self)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._transport is not None:
            self._transport.abort()
        pending, self._pending = self._pending, {}
        for receiver, _ in pending.values():
            receiver(error)

    async def closed(self) -> None:
        if self._connecting is not None:
            # The task may have been cancelled by `fail`; either way it is over.
            with contextlib.suppress(asyncio.CancelledError):
                await self._connecting
        if self._transport is not None:
            await self._lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._error is not None:
            self._transport.abort()
        else:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                if frame.is_request:
                    raise WireError("a request instead of an answer")
                self._frames_received += 1
                pending = self._pending.pop(frame.correlation_id, None)
                if pending is not None:
                    pending[0](frame)
        except WireError as error:
            problem = ConnectError(f"{self._channel.endpoint}: it sent what is no answer: {error}")
            problem.__cause__ = error
            self.fail(problem)
        else:
            self._close_if_unused()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost.done():
            self._lost.set_result(None)
        reason = str(exc) if exc is not None else "it closed the connection"
        self.fail(ConnectError(f"{self._channel.endpoint}: lost before the answer: {reason}"))

    def _deliver(self, correlation_id: int, outcome: Frame | RpcError) -> None:
        pending = self._pending.pop(correlation_id, None)
        if pending is not None:
            pending[0](outcome)

    def _deliver_soon(self, correlation_id: int, error: RpcError) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, correlation_id, error)

    def _close_if_unused(self) -> None:
        if self._retired and not self._pending:
            self.fail(ConnectError(f"{self._channel.endpoint}: the connection was given up"))


def _settle(answered: asyncio.Future[Frame], outcome: Frame | RpcError) -> None:
    if answered.done():
        return
    if isinstance(outcome, RpcError):
        answered.set_exception(outcome)
    else:
        answered.set_result(outcome)
