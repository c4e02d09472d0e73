"""One shard server of a fake cluster: a real socket in front of the seek kernel."""

from __future__ import annotations

import asyncio
from typing import cast

from cube_core._native import (
    Frame,
    Seeker,
    Table,
    encode_error_frame,
    encode_response_frame,
    parse_frames,
)
from cube_core.endpoint import Endpoint
from cube_core.errors import LimitError, VersionNotLoadedError, WireError

_HOST = "127.0.0.1"
_KEYS_PER_REQUEST_MAX = 1_000_000
_FRAME_BYTES_MAX = 512 << 20
_ERROR_CODES = {WireError: 1003, VersionNotLoadedError: 2001, LimitError: 2004}
_NO_METHOD_CODE = 1002


class FakeServer:
    """Belongs to the event loop that starts it. `delay_s` and `hangs` may be set at any time;
    `requests_num` counts seeks."""

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.hangs = False
        self.requests_num = 0
        self._port = 0
        self._seeker = Seeker(_KEYS_PER_REQUEST_MAX, _FRAME_BYTES_MAX)
        self._listener: asyncio.Server | None = None
        self._transports: dict[asyncio.Transport, asyncio.Future[None]] = {}

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint(_HOST, self._port)

    def serve(self, current: Table, previous: Table | None) -> None:
        self._seeker.set_tables(current, [] if previous is None else [previous])

    async def start(self) -> None:
        """Listens; on the same port as before."""
        if self._listener is None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(lambda: _Connection(self), _HOST, self._port)
            self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listens no more and drops every connection, as a process that dies."""
        if self._listener is None:
            return
        self._listener.close()
        # Connections that the loop has accepted are handed over in its next turn.
        await asyncio.sleep(0)
        while self._transports:
            transports = dict(self._transports)
            for transport in transports:
                transport.abort()
            await asyncio.gather(*transports.values())
        await self._listener.wait_closed()
        self._listener = None

    def opened(self, transport: asyncio.Transport) -> None:
        self._transports[transport] = asyncio.get_running_loop().create_future()
        if self._listener is None:
            transport.abort()

    def closed(self, transport: asyncio.Transport) -> None:
        self._transports.pop(transport).set_result(None)

    def requested(self, transport: asyncio.Transport, frame: Frame) -> None:
        answer = self._answer(frame)
        if self.hangs:
            return
        if self.delay_s:
            asyncio.get_running_loop().call_later(self.delay_s, transport.write, answer)
        else:
            transport.write(answer)

    def _answer(self, frame: Frame) -> bytes:
        if not frame.service.endswith("DictService") or frame.method != "seek":
            problem = f"a fake server knows no {frame.service}.{frame.method}"
            return encode_error_frame(frame.correlation_id, _NO_METHOD_CODE, problem)
        self.requests_num += 1
        try:
            return encode_response_frame(frame.correlation_id, self._seeker.seek(frame.payload))
        except (WireError, VersionNotLoadedError, LimitError) as error:
            return encode_error_frame(frame.correlation_id, _ERROR_CODES[type(error)], str(error))


class _Connection(asyncio.Protocol):
    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._unread = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._unread += data
        try:
            frames, used_bytes, _ = parse_frames(self._unread, _FRAME_BYTES_MAX)
        except WireError:
            self._transport.abort()
            return
        self._unread = self._unread[used_bytes:]
        for frame in frames:
            self._server.requested(self._transport, frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self._transport)
