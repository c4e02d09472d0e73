"""A server process as its users see it: baidu_std, HTTP and control commands."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

from cube_core._native import Frame
from cube_core.endpoint import Endpoint
from cube_core.wire.prpc_blocking import BlockingConnection
from cube_proto import dict_pb2
from tests.processes import Role
from tests.server.tables import DIM

TIMEOUT_S = 10.0


class ServerClient:
    """Speaks to one server process, one connection a wire. Not thread-safe."""

    def __init__(self, role: Role) -> None:
        self._open(Endpoint("127.0.0.1", role.port()))

    @classmethod
    def to(cls, endpoint: Endpoint) -> ServerClient:
        """Connections of its own to the server of another client."""
        client = cls.__new__(cls)
        client._open(endpoint)
        return client

    def _open(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.http = httpx.Client(
            base_url=f"http://{self.endpoint}", timeout=TIMEOUT_S, trust_env=False
        )
        self._prpc: BlockingConnection | None = None

    def __enter__(self) -> ServerClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self._prpc is not None:
            self._prpc.close()

    def call(self, service: str, method: str, payload: bytes, *, attachment: bytes = b"") -> Frame:
        if self._prpc is None:
            self._prpc = BlockingConnection(self.endpoint)
        return self._prpc.call(service, method, payload, timeout_s=TIMEOUT_S, attachment=attachment)

    def seek(self, keys: list[int], **fields: Any) -> dict_pb2.DictResponse:
        request = dict_pb2.DictRequest(keys=keys, **fields)
        frame = self.call("DictService", "seek", request.SerializeToString())
        return dict_pb2.DictResponse.FromString(bytes(frame.payload))

    def command(self, cmd: str, **fields: Any) -> httpx.Response:
        return self.http.post("/ControlService/cmd", content=json.dumps({"cmd": cmd, **fields}))

    def state(self, cmd: str, **fields: Any) -> tuple[str, str, int]:
        """cur_version, bg_version and status after a command that must not fail."""
        response = self.command(cmd, **fields)
        assert response.status_code == 200, response.text
        reply = response.json()
        return reply["cur_version"], reply["bg_version"], reply["status"]

    def status(self) -> dict[str, Any]:
        reply: dict[str, Any] = self.http.get("/status").json()
        return reply


def rows_in(response: dict_pb2.DictResponse) -> NDArray[np.float32]:
    """float32[n, DIM] of a response in which every key was found."""
    assert all(value.status == 0 for value in response.values)
    values = b"".join(value.value for value in response.values)
    return np.frombuffer(values, dtype=np.float32).reshape(-1, DIM)


def exchange(endpoint: Endpoint, data: bytes) -> bytes:
    """Sends raw bytes, says that no more will come, and returns all that is answered."""
    with socket.create_connection(endpoint, TIMEOUT_S) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return receive_all(connection)


def receive_all(connection: socket.socket) -> bytes:
    """Everything until the peer closes."""
    received: list[bytes] = []
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(1 << 20):
            received.append(data)
    return b"".join(received)


def receive_frame(connection: socket.socket) -> bytes:
    """Exactly one frame."""
    received = b""
    while len(received) < 12 or len(received) < 12 + struct.unpack(">I", received[4:8])[0]:
        data = connection.recv(65536)
        assert data, f"closed after {received!r}"
        received += data
    return received
