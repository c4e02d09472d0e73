"""Request bytes to Response bytes over each wire. All of them may be used from several threads."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError
from cube_core.tls import ClientTls, Renewed
from cube_core.wire.prpc_blocking import BlockingConnection

if TYPE_CHECKING:
    import httpx

SERVICE = "baidu.paddle_serving.predictor.ctr_prediction.CTRPredictionService"
METHOD = "inference"
PATH = f"/{SERVICE}/{METHOD}"

TransportKey = tuple[Endpoint, int, ClientTls | None]
"""Endpoint, time to connect in ms, TLS: what a transport is made for."""

_IDLE_MAX = 100
_INTERNAL_CODE = 2001
GRPC_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # A server that came back is to be found within a second.
    ("grpc.max_reconnect_backoff_ms", 1000),
)
# brpc's numbers for what a gRPC server tells by status.
_CODES = {"INVALID_ARGUMENT": 1003, "NOT_FOUND": 1002, "RESOURCE_EXHAUSTED": 2004}


class Transport(Interface):
    """One endpoint over one wire."""

    def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes | memoryview:
        """Calls the service.

        Args:
            log_id: number of the request in the logs of both sides; 0 for none.

        Raises:
            ConnectError, RpcTimeoutError, RpcError: with the endpoint in the text.
        """
        ...

    def close(self) -> None: ...


class PrpcTransport:
    """baidu_std; a connection serves one request at a time and is kept for later ones."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self._tls = tls
        self._idle: deque[BlockingConnection] = deque(maxlen=_IDLE_MAX)

    def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes | memoryview:
        connection = self._take(timeout_s)
        try:
            answer = connection.call(SERVICE, METHOD, payload, timeout_s=timeout_s, log_id=log_id)
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
                    self._endpoint,
                    connect_timeout_s=min(self._connect_timeout_s, timeout_s),
                    tls=self._tls,
                )
            if not connection.is_stale():
                return connection
            connection.close()


class HttpTransport:
    """HTTP with protobuf bodies, which brpc's servers take as well."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        import httpx

        self._wire = HttpWire(endpoint, connect_timeout_s, tls)
        self._clients = Renewed(lambda: httpx.Client(**self._wire.client_options()), tls)

    def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes:
        timeout = self._wire.timeout(timeout_s)
        client = self._clients.get()
        for each in self._clients.outlived():
            each.close()
        try:
            answer = client.post(
                self._wire.url,
                content=payload,
                timeout=timeout,
                headers=self._wire.headers(timeout_s, log_id),
                extensions=self._wire.extensions,
            )
        except Exception as error:
            raise self._wire.failure(error, timeout_s) from error
        return self._wire.content(answer)

    def close(self) -> None:
        for each in self._clients.all():
            each.close()


class HttpWire:
    """What the blocking and the asynchronous HTTP client have in common."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        import httpx

        self._httpx = httpx
        self._endpoint = endpoint
        self._connect_timeout_s = connect_timeout_s
        self.url = f"{'https' if tls else 'http'}://{endpoint}/{SERVICE}/{METHOD}"
        self._tls = tls
        self.extensions = {"sni_hostname": tls.server_name} if tls and tls.server_name else None

    def client_options(self) -> dict[str, Any]:
        return {
            "headers": {"content-type": "application/proto"},
            "trust_env": False,
            "follow_redirects": False,
            "verify": self._tls.context() if self._tls else False,
        }

    def timeout(self, timeout_s: float) -> httpx.Timeout:
        return self._httpx.Timeout(timeout_s, connect=min(self._connect_timeout_s, timeout_s))

    def headers(self, timeout_s: float, log_id: int) -> dict[str, str]:
        """What a frame tells in its meta."""
        return {"x-bd-timeout-ms": str(max(1, round(timeout_s * 1000))), **named(log_id)}

    def failure(self, error: Exception, timeout_s: float) -> Exception:
        """The error of this package that stands for one of httpx; any other as it is."""
        if isinstance(error, self._httpx.ConnectTimeout):
            return ConnectError(f"{self._endpoint}: no connection in time")
        if isinstance(error, self._httpx.TimeoutException):
            return no_answer(self._endpoint, timeout_s)
        if isinstance(error, self._httpx.TransportError):
            return ConnectError(f"{self._endpoint}: {error}")
        return error

    def content(self, answer: httpx.Response) -> bytes:
        """The body.

        Raises:
            RpcError: the status is not 200.
        """
        if answer.status_code == 200:
            return answer.content
        code = answer.headers.get("x-bd-error-code", "")
        raise RpcError(
            f"{self._endpoint}: HTTP {answer.status_code}: {answer.text[:1000]}",
            int(code) if code.isdecimal() else 0,
        )


class GrpcTransport:
    """gRPC, without protobuf objects."""

    def __init__(
        self, endpoint: Endpoint, connect_timeout_s: float, tls: ClientTls | None = None
    ) -> None:
        import grpc

        self._grpc = grpc
        self._endpoint = endpoint
        self._tls = tls
        self._channels = Renewed(self._open, tls)

    def _open(self) -> Any:
        if self._tls is None:
            return self._grpc.insecure_channel(str(self._endpoint), options=GRPC_OPTIONS)
        return self._grpc.secure_channel(str(self._endpoint), *grpc_security(self._tls))

    def call(self, payload: bytes, timeout_s: float, log_id: int = 0) -> bytes:
        channel = self._channels.get()
        for each in self._channels.outlived():
            each.close()
        try:
            answer: bytes = channel.unary_unary(PATH, None, None)(
                payload, timeout=timeout_s, metadata=tuple(named(log_id).items())
            )
        except self._grpc.RpcError as error:
            raise grpc_failure(error, self._endpoint, timeout_s) from error
        return answer

    def close(self) -> None:
        for each in self._channels.all():
            each.close()


def grpc_security(tls: ClientTls) -> tuple[Any, tuple[tuple[str, Any], ...]]:
    """Credentials and options of a channel."""
    import grpc

    files = tls.files
    root, key, chain = (
        Path(each).read_bytes() if each else None
        for each in (files.ca_file, files.key_file or files.cert_file, files.cert_file)
    )
    options = GRPC_OPTIONS
    if tls.server_name:
        options = (*options, ("grpc.ssl_target_name_override", tls.server_name))
    return grpc.ssl_channel_credentials(root, key, chain), options


def grpc_failure(error: Exception, endpoint: Endpoint, timeout_s: float) -> RpcError:
    """The error of this package that stands for one of gRPC."""
    status, details = error.code().name, error.details()  # type: ignore[attr-defined]
    if status == "DEADLINE_EXCEEDED":
        return no_answer(endpoint, timeout_s)
    if status == "UNAVAILABLE":
        return ConnectError(f"{endpoint}: {details}")
    return RpcError(f"{endpoint}: {status}: {details}", _CODES.get(status, _INTERNAL_CODE))


def named(log_id: int) -> dict[str, str]:
    """The header, or metadata, that tells it where frames do not."""
    return {"x-request-id": str(log_id)} if log_id else {}


def no_answer(endpoint: Endpoint, timeout_s: float) -> RpcTimeoutError:
    return RpcTimeoutError(f"{endpoint}: no answer within {timeout_s * 1000:.0f} ms")
