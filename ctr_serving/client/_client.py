"""The blocking client of the CTR predictor."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ctr_serving.client._routes import (
    CONNECT_TIMEOUT_MS,
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
)
from cube_core._native import encode_ctr_request, parse_ctr_response
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError, ConnectError, PredictionError, RpcTimeoutError, WireError

Protocol = Literal["baidu_std", "grpc", "http"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_TRANSPORTS: Mapping[Protocol, Callable[[Endpoint, float], Transport]] = {
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
    ) -> None:
        options = Options(connect_timeout_ms, timeout_ms, retry_count)
        self._set_up(routes_of_address(address, options), protocol)

    @classmethod
    def from_conf(
        cls, path: Path | str, name: str = "ctr_prediction_service", protocol: str | None = None
    ) -> CtrClient:
        """A client by predictors.prototxt: each request goes to one of the predictor's variants,
        at random by weight, there to one server of the cluster after the other.

        Hedging (`hedge_request_timeout_ms`) and `load_balance_strategy` have no effect.

        Args:
            protocol: instead of that of the file.

        Raises:
            ConfError: names the file and the field.
        """
        routes = read_routes(path, name)
        client = cls.__new__(cls)
        client._set_up(routes, routes.protocol if protocol is None else protocol)
        return client

    def _set_up(self, routes: Routes, protocol: str) -> None:
        if protocol not in _TRANSPORTS:
            raise ConfError(
                "command line", "protocol", f"{protocol!r} is none of {', '.join(PROTOCOLS)}"
            )
        self._routes = routes
        self._protocol = cast(Protocol, protocol)
        self._transports: dict[tuple[Endpoint, int], Transport] = {}

    def predict(
        self, sparse_ids: NDArray[np.int64], dense: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Predicts n instances.

        Args:
            sparse_ids: int64[n, 26].
            dense: float32[n, 13].

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
        payload = encode_ctr_request(
            np.ascontiguousarray(sparse_ids, np.int64), np.ascontiguousarray(dense, np.float32)
        )
        variant = self._routes.pick()
        endpoint, response = self._call(variant, payload)
        probabilities, err_code, err_msg = parse_ctr_response(response)
        if err_code:
            raise PredictionError(f"{endpoint}: err_code {err_code}: {err_msg}", err_code)
        if len(probabilities) != len(sparse_ids):
            raise WireError(
                f"{endpoint}: {len(probabilities)} predictions for {len(sparse_ids)} instances"
            )
        return probabilities

    def close(self) -> None:
        """Closes its connections."""
        while self._transports:
            self._transports.popitem()[1].close()

    def _call(self, variant: Variant, payload: bytes) -> tuple[Endpoint, bytes | memoryview]:
        timeout_ms = variant.options.timeout_ms
        deadline_s = time.monotonic() + timeout_ms / 1000
        failure: ConnectError | None = None
        for endpoint in variant.attempts():
            remaining_s = deadline_s - time.monotonic()
            if remaining_s <= 0:
                raise RpcTimeoutError(f"{endpoint}: no answer within {timeout_ms} ms") from failure
            try:
                return endpoint, self._transport(endpoint, variant).call(payload, remaining_s)
            except ConnectError as error:
                failure = error
        raise failure or ConnectError(f"variant {variant.tag!r}: nothing was tried")

    def _transport(self, endpoint: Endpoint, variant: Variant) -> Transport:
        connect_timeout_ms = variant.options.connect_timeout_ms
        key = endpoint, connect_timeout_ms
        transport = self._transports.get(key)
        if transport is None:
            made = _TRANSPORTS[self._protocol](endpoint, connect_timeout_ms / 1000)
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
