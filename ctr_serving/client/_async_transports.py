"""Request bytes to Response bytes over each wire, on an event loop; any number at a time."""

from __future__ import annotations

from typing import Any
from typing import Protocol as Interface

from ctr_serving.client._transports import (
    GRPC_OPTIONS,
    METHOD,
    PATH,
    SERVICE,
    HttpWire,
    grpc_failure,
    grpc_security,
    named,
)
from cube_core.endpoint import Endpoint
from cube_core.tls import ClientTls, Renewed
from cube_core.wire.prpc_channel import AsyncChannel


class AsyncTransport(Interface):
    """One endpoint over one wire."""

    async def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes | memoryview:
        """As `Transport.call`."""
        ...

    async def close(self) -> None: ...


class AsyncPrpcTransport:
    """baidu_std; one connection for all requests."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        self._channel = AsyncChannel(endpoint, connect_timeout_s=connect_timeout_s, tls=tls)

    async def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes | memoryview:
        answer = await self._channel.call(
            SERVICE, METHOD, payload, timeout_s=timeout_s, log_id=log_id
        )
        return answer.payload

    async def close(self) -> None:
        await self._channel.close()


class AsyncHttpTransport:
    """HTTP with protobuf bodies."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        import httpx

        self._wire = HttpWire(endpoint, connect_timeout_s, tls)
        self._clients = Renewed(lambda: httpx.AsyncClient(**self._wire.client_options()), tls)

    async def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes:
        timeout = self._wire.timeout(timeout_s)
        client = self._clients.get()
        for each in self._clients.outlived():
            await each.aclose()
        try:
            answer = await client.post(
                self._wire.url,
                content=payload,
                timeout=timeout,
                headers=self._wire.headers(timeout_s, log_id),
                extensions=self._wire.extensions,
            )
        except Exception as error:
            raise self._wire.failure(error, timeout_s) from error
        return self._wire.content(answer)

    async def close(self) -> None:
        for each in self._clients.all():
            await each.aclose()


class AsyncGrpcTransport:
    """gRPC, without protobuf objects."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        import grpc.aio

        self._error_class = grpc.aio.AioRpcError
        self._endpoint = endpoint
        self._tls = tls
        self._aio = grpc.aio
        self._channels = Renewed(self._open, tls)

    def _open(self) -> Any:
        if self._tls is None:
            return self._aio.insecure_channel(str(self._endpoint), options=GRPC_OPTIONS)
        return self._aio.secure_channel(str(self._endpoint), *grpc_security(self._tls))

    async def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes:
        channel = self._channels.get()
        for each in self._channels.outlived():
            await each.close(grace=None)
        try:
            answer: bytes = await channel.unary_unary(PATH, None, None)(
                payload, timeout=timeout_s, metadata=tuple(named(log_id).items())
            )
        except self._error_class as error:
            raise grpc_failure(error, self._endpoint, timeout_s) from error
        return answer

    async def close(self) -> None:
        for each in self._channels.all():
            await each.close(grace=None)
