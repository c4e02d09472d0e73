"""The blocking client of the CTR predictor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
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
from ctr_serving.client._async_client import AsyncCtrClient
from ctr_serving.client._attempts import Attempts
from ctr_serving.client._loop_thread import LoopThread
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
from ctr_serving.client._transports import (
    GrpcTransport,
    HttpTransport,
    PrpcTransport,
    Transport,
    TransportKey,
)
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError
from cube_core.tls import ClientTls

_TRANSPORTS: Mapping[Protocol, Callable[[Endpoint, float, ClientTls | None], Transport]] = {
    "baidu_std": PrpcTransport,
    "grpc": GrpcTransport,
    "http": HttpTransport,
}


class CtrClient:
    """Asks CTR predictors. Thread-safe; connections are kept until `close`.

    Args:
        address: "host:port", or "list://host:port,host:port" of servers that are asked in turn.
        protocol: gRPC has a port of its own on the server.
        timeout_ms: for a prediction, retries included.
        connect_timeout_ms: for a connection (over gRPC, `timeout_ms` alone counts).
        retry_count: how often a request whose connection failed is sent again.
        hedge_timeout_ms: a request that has no answer after so long is sent to another server too,
            and the first answer counts; -1: it is not. At most a tenth of all requests are.
        hedge_count: to how many others.
        tls: what the servers speak (`cube_core.tls`); None for plain text.

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
    ) -> CtrClient:
        """A client by predictors.prototxt: each request goes to one of the predictor's variants,
        at random by weight, there to one server of the cluster after the other.

        Args:
            protocol: instead of that of the file.
            tls: as of the class, instead of what the file says.

        Raises:
            ConfError: names the file and the field.
        """
        routes = read_routes(path, name, tls)
        client = cls.__new__(cls)
        client._set_up(routes, routes.protocol if protocol is None else protocol)
        return client

    def _set_up(self, routes: Routes, protocol: str) -> None:
        self._protocol = checked_protocol(protocol)
        self._routes = routes
        self._transports: dict[TransportKey, Transport] = {}
        self._hedging: _HedgingSender | None = None
        self._lock = threading.Lock()

    @property
    def variants(self) -> tuple[str, ...]:
        """Tags of the variants, in the order of predictors.prototxt."""
        return self._routes.tags

    def predict(
        self,
        sparse_ids: NDArray[np.int64],
        dense: NDArray[np.float32],
        *,
        ids_per_slot: NDArray[np.integer[Any]] | None = None,
        log_id: int = 0,
    ) -> NDArray[np.float32]:
        """Predicts n instances.

        Args:
            sparse_ids: int64[n, 26], or as many slots as the model has.
            dense: float32[n, 13].
            ids_per_slot: int[n, slots], for ops that take several ids a slot; sparse_ids is then
                int64[m], instance by instance, slot by slot.
            log_id: number of the request, by which the server's log names it; 0 for none.

        Returns:
            probabilities float32[n, 2]: of no click, of a click.

        Raises:
            ValueError: the shapes do not fit each other.
            PredictionError: the server could not predict; carries its err_code and err_msg.
            ConnectError: no server could be reached.
            RpcTimeoutError: no answer in time.
            RpcError: the server refused the request.
            WireError: the server's answer is malformed.
        """
        return self.ask(sparse_ids, dense, ids_per_slot=ids_per_slot, log_id=log_id).probabilities

    def ask(
        self,
        sparse_ids: NDArray[np.int64],
        dense: NDArray[np.float32],
        *,
        variant: str | None = None,
        ids_per_slot: NDArray[np.integer[Any]] | None = None,
        log_id: int = 0,
    ) -> Answer:
        """As `predict`, with which variant and server answered, and the server's message.

        Args:
            variant: tag of the variant to ask, in place of one at random.

        Raises:
            ValueError: also when no variant has the tag.
        """
        payload = request_bytes(sparse_ids, dense, ids_per_slot)
        chosen = self._routes.pick(variant)
        endpoint, response = self._send(chosen, payload, log_id)
        return answer_of(response, len(dense), chosen.tag, endpoint)

    def close(self) -> None:
        """Closes its connections."""
        while self._transports:
            self._transports.popitem()[1].close()
        with self._lock:
            hedging, self._hedging = self._hedging, None
        if hedging is not None:
            hedging.close()

    def _send(
        self, variant: Variant, payload: bytes, log_id: int
    ) -> tuple[Endpoint, bytes | memoryview]:
        if variant.can_hedge:
            return self._hedging_sender().send(variant, payload, log_id)
        attempts = Attempts(variant, time.monotonic())
        endpoint: Endpoint | None = attempts.first()
        while endpoint is not None:
            remaining_s = attempts.remaining_s(endpoint, time.monotonic())
            try:
                with variant.outages.watched(endpoint):
                    return endpoint, self._transport(endpoint, variant).call(
                        payload, remaining_s, log_id
                    )
            except ConnectError as error:
                failure = error
                endpoint = attempts.retry()
        raise failure

    def _hedging_sender(self) -> _HedgingSender:
        with self._lock:
            if self._hedging is None:
                self._hedging = _HedgingSender(self._routes, self._protocol)
            return self._hedging

    def _transport(self, endpoint: Endpoint, variant: Variant) -> Transport:
        options = variant.options
        key = endpoint, options.connect_timeout_ms, options.tls
        transport = self._transports.get(key)
        if transport is None:
            made = _TRANSPORTS[self._protocol](
                endpoint, options.connect_timeout_ms / 1000, options.tls
            )
            transport = self._transports.setdefault(key, made)
            if transport is not made:
                made.close()
        return transport

    def __enter__(self) -> CtrClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _HedgingSender:
    """Sends requests to several servers at once, on an event loop of its own: a thread that waits
    in a blocking call cannot turn to another one."""

    def __init__(self, routes: Routes, protocol: str) -> None:
        self._thread = LoopThread()
        self._client = AsyncCtrClient.from_routes(routes, protocol)

    def send(
        self, variant: Variant, payload: bytes, log_id: int
    ) -> tuple[Endpoint, bytes | memoryview]:
        try:
            return self._thread.run(self._client.send(variant, payload, log_id))
        except CancelledError as error:
            raise ConnectError("the client was closed before the answer") from error

    def close(self) -> None:
        self._thread.run(self._client.close())
        self._thread.close()
