"""Services over gRPC, bytes in and bytes out, with health and reflection.

Imports grpc, so import it where a tenth of a second does not matter.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from cube_core.access import is_forwarded, token_of
from cube_core.errors import ConfError, RpcTimeoutError
from cube_core.log import set_request_id
from cube_core.request_log import request_log
from cube_core.tls import ServerTls
from cube_core.wire.faults import fault_of
from cube_core.wire.limits import WireLimits
from cube_core.wire.request_ids import HEADER, request_id_of
from cube_core.wire.service import Method, RpcContext, Service

_NO_DEADLINE_S = 86_400.0


class GrpcServer:
    """A gRPC server in threads of its own; kernels run there, handlers on `loop`.

    Args:
        port: 0 for any free one.
        reuse_port: share it with other processes.

    Raises:
        ConfError: the port cannot be opened.
    """

    def __init__(
        self,
        services: tuple[Service, ...],
        limits: WireLimits,
        loop: asyncio.AbstractEventLoop,
        host: str,
        port: int,
        tls: ServerTls | None = None,
        *,
        reuse_port: bool = False,
    ) -> None:
        self._loop = loop
        self._server = grpc.server(
            ThreadPoolExecutor(limits.grpc_threads, thread_name_prefix="grpc"),
            maximum_concurrent_rpcs=limits.grpc_queue_max,
            options=[
                ("grpc.max_receive_message_length", limits.frame_bytes_max),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", int(reuse_port)),
            ],
        )
        self._server.add_generic_rpc_handlers([self._rpc_handlers(each) for each in services])
        self._health = health.HealthServicer()
        add_HealthServicer_to_server(self._health, self._server)
        self._names = ["", *(service.full_name for service in services)]
        reflection.enable_server_reflection(
            [*self._names[1:], health.SERVICE_NAME, reflection.SERVICE_NAME], self._server
        )
        try:
            self.port: int = self._open_port(f"{host}:{port}", tls)
        except RuntimeError as error:
            raise ConfError(
                "command line",
                "--grpc_port",
                f"cannot listen on {host}:{port}: in use, or no address of this machine",
            ) from error
        self._server.start()

    def _open_port(self, address: str, tls: ServerTls | None) -> int:
        if tls is None:
            return self._server.add_insecure_port(address)
        certificates = _Certificates(tls)
        return self._server.add_secure_port(
            address,
            grpc.dynamic_ssl_server_credentials(
                certificates.configuration,
                certificates.changed,  # type: ignore[arg-type]  # None, for no change, is allowed
                tls.wants_client_certificates,
            ),
        )

    def set_serving(self, serving: bool) -> None:
        """What the health service says of the server and of each of its services."""
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        status = statuses.SERVING if serving else statuses.NOT_SERVING
        for name in self._names:
            self._health.set(name, status)

    def stop(self, grace_s: float) -> None:
        """Takes no further request, waits for those under way; blocks."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()

    def _rpc_handlers(self, service: Service) -> grpc.GenericRpcHandler[bytes, bytes]:
        return grpc.method_handlers_generic_handler(
            service.full_name,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._behavior(method, f"{service.name}.{name}")
                )
                for name, method in service.methods.items()
            },
        )

    def _behavior(self, method: Method, name: str) -> Any:
        def answer(payload: bytes, call: grpc.ServicerContext) -> bytes:
            request_id = ""
            try:
                if method.kernel is not None:
                    return method.kernel(payload)
                request_id = _request_id_of(call)
                return self._on_loop(_awaited(method, name, payload, call, request_id), call)
            except Exception as error:
                fault = fault_of(error)
                request_log.failed(
                    name,
                    fault.text,
                    peer=_peer_of(call),
                    request_id=request_id or _request_id_of(call),
                )
                call.abort(grpc.StatusCode[fault.grpc_status], fault.text)
                raise

        return answer

    def _on_loop(self, answered: Coroutine[Any, Any, bytes], call: grpc.ServicerContext) -> bytes:
        answer = asyncio.run_coroutine_threadsafe(answered, self._loop)
        try:
            return answer.result(_remaining_s(call))
        except concurrent.futures.TimeoutError as error:
            answer.cancel()
            raise RpcTimeoutError("no answer within the caller's timeout") from error


def _remaining_s(call: grpc.ServicerContext) -> float | None:
    remaining_s: float | None = call.time_remaining()
    # Without a deadline grpc counts from an instant in the far future.
    return None if remaining_s is None or remaining_s > _NO_DEADLINE_S else remaining_s


def _peer_of(call: grpc.ServicerContext) -> str:
    """host:port of the caller; of a proxy, with words that make it no address of this machine."""
    peer = str(call.peer().partition(":")[2])
    return f"proxy at {peer}" if is_forwarded(dict(call.invocation_metadata() or ())) else peer


def _metadata_of(call: grpc.ServicerContext, name: str) -> str:
    return str(dict(call.invocation_metadata() or ()).get(name, ""))


def _token_of(call: grpc.ServicerContext) -> str:
    return token_of(_metadata_of(call, "authorization"))


def _request_id_of(call: grpc.ServicerContext) -> str:
    return request_id_of(_metadata_of(call, HEADER))


class _Certificates:
    """The certificates of the port, asked for by gRPC at every handshake."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._context = tls.newest()
        self.configuration = self._read()

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """What to use from now on; None to go on with what there is."""
        # What TLS on the other port could not use is not offered here either.
        context = self._tls.newest()
        if context is self._context:
            return None
        try:
            configuration = self._read()
        except OSError:
            return None
        if self._tls.newest() is not context:
            # Replaced again meanwhile, so that it may be half of the one and half of the other.
            return None
        self._context, self.configuration = context, configuration
        return configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._tls.files
        key = Path(files.key_file or files.cert_file).read_bytes()
        pair = (key, Path(files.cert_file).read_bytes())
        ca = Path(files.ca_file).read_bytes() if files.ca_file else None
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)


async def _awaited(
    method: Method, name: str, payload: bytes, call: grpc.ServicerContext, request_id: str
) -> bytes:
    set_request_id(request_id)
    begin_s, remaining_s = time.monotonic(), _remaining_s(call)
    deadline_s = None if remaining_s is None else begin_s + remaining_s
    context = RpcContext(_peer_of(call), deadline_s=deadline_s, token=_token_of(call))
    try:
        return await method.handler(payload, context)
    finally:
        took_s = time.monotonic() - begin_s
        if took_s > request_log.slow_s:
            request_log.slow(name, took_s, peer=context.peer)
