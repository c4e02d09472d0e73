"""HTTP connections: uvicorn's own protocol, with a limit on heads and a place in the registry.

Imports uvicorn, so import it where half a second does not matter.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.peer_watch import PeerWatch
from cube_core.wire.port import HttpProtocolFactory
from cube_core.wire.prpc_protocol import address_text

log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75


class HttpConnection(HttpToolsProtocol):
    """One HTTP/1.1 connection of the port."""

    def __init__(
        self,
        config: uvicorn.Config,
        state: ServerState,
        limits: WireLimits,
        connections: Connections,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(config=config, server_state=state, app_state={}, _loop=loop)
        self._limits = limits
        self._registry = connections
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._registry.replace(transport, self)
        self._watch = PeerWatch(self._limits, self.loop, self._close_idle, self.cut_off)

    def connection_lost(self, error: Exception | None) -> None:
        self._watch.end()
        self._registry.remove(self.transport)
        self._registry.unread.forget(self)
        super().connection_lost(error)

    def drain(self) -> None:
        self.shutdown()

    def data_received(self, data: bytes) -> None:
        self._watch.active = True
        super().data_received(data)

    def pause_writing(self) -> None:
        self._watch.unread()
        super().pause_writing()
        # The write that filled the buffer may have more to come.
        self.loop.call_soon(self._count_unread)

    def resume_writing(self) -> None:
        self._watch.read()
        self._registry.unread.forget(self)
        super().resume_writing()

    @property
    def unread_bytes(self) -> int:
        """Answers that wait for the peer to read them."""
        return self.transport.get_write_buffer_size()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        self._watch.partial()
        self._watch.busy = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self._watch.whole()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch.busy = not (self.cycle is None or self.cycle.response_complete)

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def cut_off(self, reason: str) -> None:
        """Closes the connection at once, without what waits for its peer."""
        if self.transport.is_closing():
            return
        self._registry.counters.peers_cut_off += 1
        peer = address_text(self.transport.get_extra_info("peername"))
        log.warning("%s is cut off: %s", peer, reason)
        self.transport.abort()

    def _count_unread(self) -> None:
        if self.flow.write_paused and not self.transport.is_closing():
            self._registry.bound_unread(self)

    def _close_idle(self) -> None:
        self._registry.counters.connections_idle += 1
        self.transport.abort()

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.http_head_bytes_max:
            peer = address_text(self.transport.get_extra_info("peername"))
            limit = self._limits.http_head_bytes_max
            log.warning("%s is cut off: an HTTP head over http_head_bytes_max=%d", peer, limit)
            # The parser turns an error in its callback into 400 and the end of the connection.
            raise ValueError("http_head_bytes_max")


def http_factory(
    app: Any,
    limits: WireLimits,
    connections: Connections,
    loop: asyncio.AbstractEventLoop,
) -> HttpProtocolFactory:
    """A maker of protocols that serve the ASGI `app`; may be called in any thread."""
    config = uvicorn.Config(
        app,
        http=HttpToolsProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        # Else a header could say who asks, and the environment whose.
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
    config.load()
    state = ServerState()
    return lambda: HttpConnection(config, state, limits, connections, loop)
