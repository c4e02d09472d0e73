"""A server of services on all wires: baidu_std and HTTP on one port, gRPC on another."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from cube_core.errors import ConfError
from cube_core.request_log import request_log
from cube_core.tls import ServerTls
from cube_core.wire.batch_path import BatchPath
from cube_core.wire.connections import Connections, WireCounters
from cube_core.wire.limits import WireLimits
from cube_core.wire.port import HttpProtocolFactory, PortProtocol
from cube_core.wire.prpc_protocol import FastPath, PrpcProtocol
from cube_core.wire.service import Service, ServiceTable

if TYPE_CHECKING:
    from cube_core.wire.grpc_server import GrpcServer

log = logging.getLogger(__name__)

_BACKLOG = 1024
_DEFAULT_LIMITS = WireLimits()


class RpcServer:
    """Serves `services` until drained.

    Args:
        http_app_factory: makes the ASGI app for HTTP connections (see `wire.http.service_router`).
            Called in a thread, so that the heavy imports of an app do not delay the other wires;
            HTTP connections that come earlier wait for it.
        port: of baidu_std and HTTP; 0 for any free one.
        grpc_port: 0 for any free one, None for no gRPC.
        fast_path: a kernel that answers frames by itself on the event loop.
        batch_path: takes the requests of one method as they come, to answer them together.
        reuse_port: share the ports with other processes; the kernel deals out connections.
        tls: what all ports speak then, and nothing else.
    """

    def __init__(
        self,
        services: Sequence[Service],
        http_app_factory: Callable[[], Any],
        *,
        host: str,
        port: int,
        grpc_port: int | None = None,
        limits: WireLimits = _DEFAULT_LIMITS,
        fast_path: FastPath | None = None,
        batch_path: BatchPath | None = None,
        reuse_port: bool = False,
        tls: ServerTls | None = None,
    ) -> None:
        self._table = ServiceTable(services)
        self._http_app_factory = http_app_factory
        self._host = host
        self._limits = limits
        self._fast_path = fast_path
        self._batch_path = batch_path
        self._reuse_port = reuse_port
        self._tls = tls
        self._connections = Connections(limits.connections_max, limits.unread_bytes_max)
        self._grpc: GrpcServer | None = None
        self._serving = False
        self.port = port
        self.grpc_port = grpc_port
        request_log.slow_s = limits.slow_request_ms / 1000 or math.inf

    @property
    def counters(self) -> WireCounters:
        return self._connections.counters

    @property
    def connections_open(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Opens the ports; from then on `port` and `grpc_port` are the real ones.

        Raises:
            ConfError: a port cannot be opened.
        """
        loop = asyncio.get_running_loop()
        self._http_ready: asyncio.Future[HttpProtocolFactory] = loop.create_future()
        handshake_timeout_s = self._limits.handshake_timeout_ms / 1000 if self._tls else None
        try:
            self._listener = await loop.create_server(
                self._new_connection,
                self._host,
                self.port,
                backlog=_BACKLOG,
                reuse_port=self._reuse_port or None,
                ssl=self._tls.context if self._tls else None,
                ssl_handshake_timeout=handshake_timeout_s,
            )
        except OSError as error:
            raise ConfError(
                "command line", "--port", f"cannot listen on {self._host}:{self.port}: {error}"
            ) from error
        self.port = self._listener.sockets[0].getsockname()[1]
        if self.grpc_port is not None:
            self._grpc = await asyncio.to_thread(self._start_grpc, loop, self.grpc_port)
            self.grpc_port = self._grpc.port
        self._http_start = loop.create_task(self._start_http(loop))

    async def http_started(self) -> None:
        """Waits until HTTP is served, or cannot be."""
        await asyncio.wait([self._http_start])

    def set_serving(self, serving: bool) -> None:
        """What the gRPC health service answers; false until the first call."""
        self._serving = serving
        if self._grpc is not None:
            self._grpc.set_serving(serving)

    async def drain(self, timeout_s: float) -> None:
        """Takes no further connection, answers what is under way, and closes all; what is not
        answered within `timeout_s` is cut off."""
        self._listener.close()
        stops = [self._connections.drain(timeout_s)]
        if self._grpc is not None:
            stops.append(asyncio.to_thread(self._grpc.stop, timeout_s))
        await asyncio.gather(*stops)
        self._http_start.cancel()

    def _new_connection(self) -> PortProtocol:
        return PortProtocol(self._limits, self._connections, self._new_prpc, self._http_ready)

    def _new_prpc(self) -> PrpcProtocol:
        return PrpcProtocol(
            self._table, self._limits, self._connections, self._fast_path, self._batch_path
        )

    def _start_grpc(self, loop: asyncio.AbstractEventLoop, port: int) -> GrpcServer:
        from cube_core.wire.grpc_server import GrpcServer

        server = GrpcServer(
            self._table.services,
            self._limits,
            loop,
            self._host,
            port,
            self._tls,
            reuse_port=self._reuse_port,
        )
        server.set_serving(self._serving)
        return server

    async def _start_http(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._http_ready.set_result(await asyncio.to_thread(self._make_http, loop))
        except Exception as error:
            log.exception("HTTP cannot be served; baidu_std goes on")
            self._http_ready.set_exception(error)

    def _make_http(self, loop: asyncio.AbstractEventLoop) -> HttpProtocolFactory:
        from cube_core.wire.http_connection import http_factory

        return http_factory(self._http_app_factory(), self._limits, self._connections, loop)
