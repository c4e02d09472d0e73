"""Request bytes to Response bytes over each wire. All of them may be used from several threads."""

from __future__ import annotations

from collections import deque
from typing import Protocol as Interface

from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError
from cube_core.wire.prpc_blocking import BlockingConnection

SERVICE = "baidu.paddle_serving.predictor.ctr_prediction.CTRPredictionService"
METHOD = "inference"

_IDLE_MAX = 100
_INTERNAL_CODE = 2001
# brpc's numbers for what a gRPC server tells by status.
_CODES = {"INVALID_ARGUMENT": 1003, "NOT_FOUND": 1002, "RESOURCE_EXHAUSTED": 2004}


class Transport(Interface):
    """One endpoint over one wire."""

    def call(self, payload: bytes, timeout_s: float) -> bytes | memoryview:
        """Calls the service.

        Raises:
            ConnectError, RpcTimeoutError, RpcError: with the endpoint in the text.
        """
        ...

    def close(self) -> None: ...


class PrpcTransport:
    """baidu_std; a connection serves one request at a time and is kept for later ones."""

    def __init__(self, endpoint: Endpoint, connect_timeout_s: float) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._idle: deque[BlockingConnection] = deque(maxlen=_IDLE_MAX)

    def call(self, payload: bytes, timeout_s: float) -> bytes | memoryview:
        connection = self._take(timeout_s)
        try:
            answer = connection.call(SERVICE, METHOD, payload, timeout_s=timeout_s)
        except RpcError as error:
            # An error that the peer told leaves the connection in order; any other does not.
            if isinstance(error, (ConnectError, RpcTimeoutError)):
                connection.close()
            else:
                self._idle.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer.payload

    def close(self) -> None:
        while self._idle:
            self._idle.pop().close()

    def _take(self, timeout_s: float) -> BlockingConnection:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return BlockingConnection(
                    self._endpoint, connect_timeout_s=min(self._connect_timeout_s, timeout_s)
                )
            if not connection.is_stale():
                return connection
            connection.close()


class HttpTransport:
    """HTTP with protobuf bodies, which brpc's servers take as well."""

    def __init__(self, endpoint: Endpoint, connect_timeout_s: float) -> None:
        import httpx

        self._httpx = httpx
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._url = f"http://{endpoint}/{SERVICE}/{METHOD}"
        self._client = httpx.Client(
            headers={"content-type": "application/proto"}, trust_env=False, follow_redirects=False
        )

    def call(self, payload: bytes, timeout_s: float) -> bytes:
        timeout = self._httpx.Timeout(timeout_s, connect=min(self._connect_timeout_s, timeout_s))
        try:
            answer = self._client.post(self._url, content=payload, timeout=timeout)
        except self._httpx.ConnectTimeout as error:
            raise ConnectError(f"{self._endpoint}: no connection in time") from error
        except self._httpx.TimeoutException as error:
            raise RpcTimeoutError(
                f"{self._endpoint}: no answer within {timeout_s * 1000:.0f} ms"
            ) from error
        except self._httpx.TransportError as error:
            raise ConnectError(f"{self._endpoint}: {error}") from error
        if answer.status_code != 200:
            code = answer.headers.get("x-bd-error-code", "")
            raise RpcError(
                f"{self._endpoint}: HTTP {answer.status_code}: {answer.text[:1000]}",
                int(code) if code.isdecimal() else 0,
            )
        return answer.content

    def close(self) -> None:
        self._client.close()


class GrpcTransport:
    """gRPC, without protobuf objects."""

    def __init__(self, endpoint: Endpoint, connect_timeout_s: float) -> None:
        import grpc

        self._grpc = grpc
        self._endpoint = endpoint
        self._channel = grpc.insecure_channel(
            str(endpoint),
            options=[
                ("grpc.max_receive_message_length", -1),
                ("grpc.enable_http_proxy", 0),
                # A server that came back is to be found within a second.
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._inference = self._channel.unary_unary(
            f"/{SERVICE}/{METHOD}", request_serializer=None, response_deserializer=None
        )

    def call(self, payload: bytes, timeout_s: float) -> bytes:
        try:
            answer: bytes = self._inference(payload, timeout=timeout_s)
        except self._grpc.RpcError as error:
            raise self._told(error, timeout_s) from error
        return answer

    def close(self) -> None:
        self._channel.close()

    def _told(self, error: Exception, timeout_s: float) -> RpcError:
        status, details = error.code().name, error.details()  # type: ignore[attr-defined]
        if status == "DEADLINE_EXCEEDED":
            return RpcTimeoutError(f"{self._endpoint}: no answer within {timeout_s * 1000:.0f} ms")
        if status == "UNAVAILABLE":
            return ConnectError(f"{self._endpoint}: {details}")
        return RpcError(
            f"{self._endpoint}: {status}: {details}", _CODES.get(status, _INTERNAL_CODE)
        )
