"""One TCP port for baidu_std and HTTP: the first four bytes of a connection tell them apart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.peer_watch import PeerWatch
from cube_core.wire.prpc_protocol import PrpcProtocol, address_text
from cube_core.wire.tls_transport import counting

log = logging.getLogger(__name__)

_START_BYTES = 4
_PRPC_START = b"PRPC"
_HTTP_STARTS = frozenset(
    {b"GET ", b"POST", b"PUT ", b"HEAD", b"DELE", b"OPTI", b"PATC", b"TRAC", b"CONN"}
)

HttpProtocolFactory = Callable[[], asyncio.Protocol]


class PortProtocol(asyncio.Protocol):
    """Reads the start of a connection and hands it, with the bytes read, to who speaks that.

    Args:
        prpc_factory: makes the protocol of a baidu_std connection.
        http_ready: yields the maker of the protocol of an HTTP connection; connections wait
            for it without being read.
    """

    def __init__(
        self,
        limits: WireLimits,
        connections: Connections,
        prpc_factory: Callable[[], PrpcProtocol],
        http_ready: asyncio.Future[HttpProtocolFactory],
    ) -> None:
        self._limits = limits
        self._connections = connections
        self._prpc_factory = prpc_factory
        self._http_ready = http_ready
        self._start = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = counting(cast(asyncio.Transport, transport))
        self._peer = address_text(transport.get_extra_info("peername"))
        loop = asyncio.get_running_loop()
        self._watch = PeerWatch(self._limits, loop, self._close_idle, self._cut_off)
        if not self._connections.admit(self._transport, self):
            log.warning(
                "%s is refused: connections_max=%d are open",
                self._peer,
                len(self._connections),
            )
            transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._watch.end()
        self._connections.remove(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        if not self._start:
            self._watch.partial()
        self._start += data
        if len(self._start) < _START_BYTES:
            return
        word = self._start[:_START_BYTES]
        if word == _PRPC_START:
            self._hand_over(self._prpc_factory())
        elif word not in _HTTP_STARTS:
            self._cut_off(f"{word!r} starts neither baidu_std nor HTTP")
        elif self._http_ready.done():
            self._hand_over_http()
        else:
            self._watch.pause(True)
            self._transport.pause_reading()
            self._http_ready.add_done_callback(lambda _: self._hand_over_http())

    def drain(self) -> None:
        self._transport.close()

    def _hand_over_http(self) -> None:
        if self._transport.is_closing():
            return
        if self._http_ready.cancelled() or self._http_ready.exception():
            self._transport.close()
            return
        protocol = self._http_ready.result()()
        self._transport.resume_reading()
        self._hand_over(protocol)

    def _cut_off(self, reason: str) -> None:
        self._connections.counters.peers_cut_off += 1
        log.warning("%s is cut off: %s", self._peer, reason)
        self._transport.close()

    def _close_idle(self) -> None:
        self._connections.counters.connections_idle += 1
        self._transport.close()

    def _hand_over(self, protocol: asyncio.Protocol) -> None:
        self._watch.end()
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._start)
