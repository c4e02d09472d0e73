"""The client of the CTR predictor for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.client._answer import (
    Answer,
    Protocol,
    answer_of,
    checked_protocol,
    request_bytes,
)
from ctr_serving.client._async_transports import (
    AsyncGrpcTransport,
    AsyncHttpTransport,
    AsyncPrpcTransport,
    AsyncTransport,
)
from ctr_serving.client._attempts import Attempts
from ctr_serving.client._routes import (
    CONNECT_TIMEOUT_MS,
    HEDGE_COUNT,
    NO_HEDGE,
    RETRY_COUNT,
    TIMEOUT_MS,
    Options,
    Routes,
    Variant,
    read_routes,
    routes_of_address,
)
from ctr_serving.client._transports import TransportKey
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError
from cube_core.tls import ClientTls

_ON_LOOP_ROWS_MAX = 2000

_TRANSPORTS: Mapping[Protocol, Callable[[Endpoint, float, ClientTls | None], AsyncTransport]] = {
    "baidu_std": AsyncPrpcTransport,
    "grpc": AsyncGrpcTransport,
    "http": AsyncHttpTransport,
}


class AsyncCtrClient:
    """`CtrClient` for one event loop: any number of predictions at once, over one connection to
    each server (HTTP: a pool).

    Args:
        address: "host:port", or "list://host:port,host:port" of servers that are asked in turn.
        protocol, timeout_ms, connect_timeout_ms, retry_count, hedge_timeout_ms, hedge_count: as of
            `CtrClient`.

    Raises:
        ConfError: the address or the protocol is none.
    """

    def __init__(
        self,
        address: str,
        protocol: str = "baidu_std",
        *,
        timeout_ms: int = TIMEOUT_MS,
        connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
        retry_count: int = RETRY_COUNT,
        hedge_timeout_ms: int = NO_HEDGE,
        hedge_count: int = HEDGE_COUNT,
        tls: ClientTls | None = None,
    ) -> None:
        options = Options(
            connect_timeout_ms, timeout_ms, retry_count, hedge_timeout_ms, hedge_count, tls
        )
        self._set_up(routes_of_address(address, options), protocol)

    @classmethod
    def from_conf(
        cls,
        path: Path | str,
        name: str = "ctr_prediction_service",
        protocol: str | None = None,
        tls: ClientTls | None = None,
    ) -> AsyncCtrClient:
        """As `CtrClient.from_conf`."""
        return cls.from_routes(read_routes(path, name, tls), protocol)

    @classmethod
    def from_routes(cls, routes: Routes, protocol: str | None = None) -> AsyncCtrClient:
        client = cls.__new__(cls)
        client._set_up(routes, routes.protocol if protocol is None else protocol)
        return client

    def _set_up(self, routes: Routes, protocol: str) -> None:
        self._protocol = checked_protocol(protocol)
        self._routes = routes
        self._transports: dict[TransportKey, AsyncTransport] = {}
        self._closes_num = 0

    @property
    def variants(self) -> tuple[str, ...]:
        """As of `CtrClient`."""
        return self._routes.tags

    async def predict(
        self,
        sparse_ids: NDArray[np.int64],
        dense: NDArray[np.float32],
        *,
        ids_per_slot: NDArray[np.integer[Any]] | None = None,
        log_id: int = 0,
    ) -> NDArray[np.float32]:
        """As `CtrClient.predict`; cancelling it drops what is in flight."""
        return (
            await self.ask(sparse_ids, dense, ids_per_slot=ids_per_slot, log_id=log_id)
        ).probabilities

    async def ask(
        self,
        sparse_ids: NDArray[np.int64],
        dense: NDArray[np.float32],
        *,
        variant: str | None = None,
        ids_per_slot: NDArray[np.integer[Any]] | None = None,
        log_id: int = 0,
    ) -> Answer:
        """As `CtrClient.ask`."""
        chosen = self._routes.pick(variant)
        rows = len(dense)
        if rows > _ON_LOOP_ROWS_MAX:
            payload = await asyncio.to_thread(request_bytes, sparse_ids, dense, ids_per_slot)
        else:
            payload = request_bytes(sparse_ids, dense, ids_per_slot)
        endpoint, response = await self.send(chosen, payload, log_id)
        return answer_of(response, rows, chosen.tag, endpoint)

    async def send(
        self, variant: Variant, payload: bytes, log_id: int
    ) -> tuple[Endpoint, bytes | memoryview]:
        """Request bytes to Response bytes, and the server that answered.

        Raises:
            ConnectError, RpcTimeoutError, RpcError: as `CtrClient.predict`.
        """
        attempts = Attempts(variant, time.monotonic())
        if attempts.can_hedge:
            return await self._send_hedged(variant, payload, log_id, attempts)
        closes_num = self._closes_num
        endpoint: Endpoint | None = attempts.first()
        while endpoint is not None:
            try:
                return await self._call(variant, payload, log_id, attempts, endpoint)
            except ConnectError as error:
                failure = error
                endpoint = self._retry(attempts, closes_num)
        raise failure

    async def close(self) -> None:
        """Closes its connections; what is in flight fails with ConnectError."""
        self._closes_num += 1
        while self._transports:
            await self._transports.popitem()[1].close()

    async def _send_hedged(
        self, variant: Variant, payload: bytes, log_id: int, attempts: Attempts
    ) -> tuple[Endpoint, bytes | memoryview]:
        pending: set[asyncio.Task[tuple[Endpoint, bytes | memoryview]]] = set()

        def begin(endpoint: Endpoint | None) -> None:
            if endpoint is None:
                return
            task = asyncio.ensure_future(self._call(variant, payload, log_id, attempts, endpoint))
            task.add_done_callback(_forget_error)
            pending.add(task)

        closes_num = self._closes_num
        begin(attempts.first())
        failure: RpcError | None = None
        try:
            while pending:
                done, _ = await asyncio.wait(
                    pending,
                    timeout=attempts.wait_s(time.monotonic()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                begin(None if done else attempts.hedge(time.monotonic()))
                for task in done:
                    pending.discard(task)
                    try:
                        return task.result()
                    except ConnectError as error:
                        failure = error
                        begin(self._retry(attempts, closes_num))
                    except RpcError as error:
                        # What one refuses, or has no time for, another may be about to answer.
                        failure = error
        finally:
            for task in pending:
                task.cancel()
        raise failure or ConnectError(f"variant {variant.tag!r}: nothing was tried")

    def _retry(self, attempts: Attempts, closes_num: int) -> Endpoint | None:
        """The server to ask when another could not be reached; None once the client was closed
        since the request began."""
        return attempts.retry() if self._closes_num == closes_num else None

    async def _call(
        self, variant: Variant, payload: bytes, log_id: int, attempts: Attempts, endpoint: Endpoint
    ) -> tuple[Endpoint, bytes | memoryview]:
        remaining_s = attempts.remaining_s(endpoint, time.monotonic())
        transport = self._transport(endpoint, variant.options)
        with variant.outages.watched(endpoint):
            return endpoint, await transport.call(payload, remaining_s, log_id)

    def _transport(self, endpoint: Endpoint, options: Options) -> AsyncTransport:
        key = endpoint, options.connect_timeout_ms, options.tls
        transport = self._transports.get(key)
        if transport is None:
            make = _TRANSPORTS[self._protocol]
            transport = self._transports[key] = make(
                endpoint, options.connect_timeout_ms / 1000, options.tls
            )
        return transport

    async def __aenter__(self) -> AsyncCtrClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


def _forget_error(task: asyncio.Task[tuple[Endpoint, bytes | memoryview]]) -> None:
    """Two servers may fail at once; one error is told, and the loop is not to complain of the
    other."""
    if not task.cancelled():
        task.exception()
