"""One server process, asked over every wire."""

from __future__ import annotations

import base64
import json
import random
import socket
import struct
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from cube_core._native import encode_request_frame
from cube_core.errors import RpcError
from cube_proto import control_pb2, dict_pb2
from tests.processes import Role
from tests.server.client import (
    TIMEOUT_S,
    ServerClient,
    exchange,
    receive_all,
    receive_frame,
    rows_in,
)
from tests.server.tables import DICT_NAME, KEY_COUNT, rows_of
from tests.waiting import wait_until

MISSING = 0xFFFFFFFF
JSON = {"content-type": "application/json"}


class TestBaiduStd:
    def test_found_and_missing_keys(self, client: ServerClient) -> None:
        response = client.seek([3, 2**64 - 1, 3, 0], version_required=True)
        assert [value.status for value in response.values] == [0, MISSING, 0, 0]
        assert response.values[1].value == b""
        assert response.version == "10_10"
        del response.values[1]
        expected = rows_of(np.array([3, 3, 0], dtype=np.uint64), 10)
        np.testing.assert_array_equal(rows_in(response), expected)

    def test_large_seeks(self, client: ServerClient) -> None:
        keys = list(range(1500))
        np.testing.assert_array_equal(
            rows_in(client.seek(keys)), rows_of(np.array(keys, dtype=np.uint64), 10)
        )

    def test_limits_are_named(self, client: ServerClient) -> None:
        with pytest.raises(RpcError, match="keys_per_request_max") as caught:
            client.seek([1] * 1501)
        assert caught.value.code == 2004
        assert f"[{client.endpoint}][E2004]" in str(caught.value)

    def test_version_that_is_not_loaded(self, client: ServerClient) -> None:
        with pytest.raises(RpcError, match="11_11") as caught:
            client.seek([1], version="11_11")
        assert caught.value.code == 2001
        assert len(client.seek([1], version="10_10").values) == 1

    def test_an_oversized_frame_closes_its_connection_only(self, client: ServerClient) -> None:
        head = b"PRPC" + struct.pack(">II", (64 << 20) + 1, 20)
        assert client.seek([1]).values[0].status == 0
        assert exchange(client.endpoint, head) == b""
        assert client.seek([1]).values[0].status == 0

    def test_random_bytes_disturb_nobody(self, client: ServerClient) -> None:
        generator = random.Random(7)
        for start in (b"", b"PRPC", b"GET ", b"POST / HTTP/1.1\r\n"):
            for _ in range(10):
                exchange(client.endpoint, start + generator.randbytes(generator.randrange(1, 200)))
        assert client.seek([1]).values[0].status == 0

    def test_half_a_frame_holds_up_nobody(self, client: ServerClient) -> None:
        frame = encode_request_frame("DictService", "seek", 1, b"\x08\x01")
        with socket.create_connection(client.endpoint, TIMEOUT_S) as slow:
            slow.sendall(frame[:20])
            assert client.seek([1]).values[0].status == 0
            slow.sendall(frame[20:])
            assert receive_frame(slow).startswith(b"PRPC")

    def test_a_peer_that_reads_nothing_is_not_read_from(self, client: ServerClient) -> None:
        """Its answers do not pile up in the server: the server stops taking its requests."""
        payload = dict_pb2.DictRequest(keys=range(1500)).SerializeToString()
        frame = encode_request_frame("DictService", "seek", 1, payload)
        with socket.create_connection(client.endpoint, TIMEOUT_S) as greedy:
            greedy.settimeout(1.0)
            with pytest.raises(TimeoutError):
                _send_endlessly(greedy, frame)
            assert client.seek([1]).values[0].status == 0

    def test_control_commands_travel_in_the_attachment(self, client: ServerClient) -> None:
        frame = client.call("ControlService", "cmd", b"", attachment=b'{"cmd":"status"}')
        assert json.loads(bytes(frame.attachment)) == {
            "cur_version": "10_10",
            "bg_version": "",
            "status": 0,
            "want_version": "",
            "ready": True,
        }
        with pytest.raises(RpcError, match="JSON") as caught:
            client.call("ControlService", "cmd", b"", attachment=b"{")
        assert caught.value.code == 1003
        with pytest.raises(RpcError, match="77_77") as caught:
            client.call("ControlService", "cmd", b"", attachment=b'{"cmd":"enable","version":"77"}')
        assert caught.value.code == 2001


class TestHttp:
    def expected_json(self) -> dict[str, object]:
        value = rows_of(np.array([1], dtype=np.uint64), 10).tobytes()
        return {
            "values": [
                {"status": 0, "value": base64.b64encode(value).decode()},
                {"status": MISSING, "value": ""},
            ]
        }

    @pytest.mark.parametrize("service", ["DictService", "rec.mcube.DictService"])
    @pytest.mark.parametrize(
        "body",
        [{"keys": [1, 999999999]}, {"keys": ["1", "999999999"]}, {"keys": [1, 999999999], "x": {}}],
    )
    def test_seek(self, client: ServerClient, service: str, body: dict[str, object]) -> None:
        response = client.http.post(f"/{service}/seek", content=json.dumps(body), headers=JSON)
        assert response.status_code == 200
        assert response.json() == self.expected_json()
        assert response.headers["content-type"] == "application/json"

    def test_version_when_asked_for(self, client: ServerClient) -> None:
        body = '{"keys":[1],"version_required":true}'
        assert client.http.post("/DictService/seek", content=body).json()["version"] == "10_10"

    @pytest.mark.parametrize("body", ["", "{}"])
    def test_nothing_asked_for(self, client: ServerClient, body: str) -> None:
        response = client.http.post("/DictService/seek", content=body)
        assert (response.status_code, response.text) == (200, "{}")

    @pytest.mark.parametrize(
        "body",
        [
            '{"keys":[-1]}',
            '{"keys":1}',
            "no JSON",
            "[1]",
            '{"keys":[18446744073709551616]}',
            "[" * 9000,
        ],
    )
    def test_bodies_that_cannot_be_read(self, client: ServerClient, body: str) -> None:
        response = client.http.post("/DictService/seek", content=body, headers=JSON)
        assert response.status_code == 400
        assert response.headers["x-bd-error-code"] == "1003"
        start = f"[{client.endpoint}][E1003]Fail to parse http body as rec.mcube.DictRequest, "
        assert response.text.startswith(start)

    @pytest.mark.parametrize("path", ["/Nope/seek", "/DictService/nope", "/rec.mcube.Nope/seek"])
    def test_unknown_methods(self, client: ServerClient, path: str) -> None:
        response = client.http.post(path, content="{}")
        assert response.status_code == 404
        assert response.headers["x-bd-error-code"] == "1002"
        assert response.text == f"[{client.endpoint}][E1002]Fail to find method={path[1:]}"

    def test_limits_and_versions_are_named(self, client: ServerClient) -> None:
        response = client.http.post("/DictService/seek", content=json.dumps({"keys": [1] * 1501}))
        assert (response.status_code, response.headers["x-bd-error-code"]) == (413, "2004")
        assert "keys_per_request_max" in response.text
        response = client.http.post("/DictService/seek", content='{"version":"11_11"}')
        assert (response.status_code, response.headers["x-bd-error-code"]) == (409, "2001")
        assert "11_11" in response.text

    def test_raw_protobuf_both_ways(self, client: ServerClient) -> None:
        response = client.http.post(
            "/DictService/seek",
            content=dict_pb2.DictRequest(keys=[1, 2]).SerializeToString(),
            headers={"content-type": "application/proto"},
        )
        assert response.headers["content-type"] == "application/proto"
        rows = rows_in(dict_pb2.DictResponse.FromString(response.content))
        np.testing.assert_array_equal(rows, rows_of(np.array([1, 2], dtype=np.uint64), 10))

    def test_pages(self, client: ServerClient) -> None:
        for path, text in (
            ("/live", "OK"),
            ("/health", "OK"),
            ("/ready", "OK"),
            ("/version", "Cube Service"),
        ):
            response = client.http.get(path)
            assert (response.status_code, response.text) == (200, text)
        assert client.http.get("/nope").status_code == 404

    def test_status_tells_versions_and_counters(self, client: ServerClient) -> None:
        before = client.status()
        client.seek([1, 2, 10**12])
        after = client.status()
        assert (after["cur_version"], after["bg_version"], after["status"]) == ("10_10", "", 0)
        [version] = after["versions"]
        assert (version["key_count"], version["role"]) == (KEY_COUNT, "current")
        assert after["versions_on_disk"] == ["10_10"]
        for counter, growth in (("requests", 1), ("keys", 3), ("missing_keys", 1), ("errors", 0)):
            assert after["counters"][counter] - before["counters"][counter] == growth

    def test_metrics(self, client: ServerClient) -> None:
        client.seek([1])
        lines = client.http.get("/metrics").text.splitlines()
        assert "cube_server_ready 1.0" in lines
        labels = f'dict="{DICT_NAME}",role="current",version="10_10"'
        assert f"cube_server_table_keys{{{labels}}} {KEY_COUNT}.0" in lines
        [requests] = [line for line in lines if line.startswith("cube_server_seek_requests_total")]
        assert float(requests.split()[1]) >= 1

    def test_endless_heads_are_cut_off(self, client: ServerClient) -> None:
        with socket.create_connection(client.endpoint, TIMEOUT_S) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n")
            wait_until(lambda: _is_cut_off(connection), what="the connection is cut off")
        assert client.http.get("/health").text == "OK"

    def test_oversized_bodies_are_refused(self, client: ServerClient) -> None:
        body = b"x" * ((64 << 20) + 1)
        response = client.http.post("/DictService/seek", content=body)
        assert response.status_code == 413
        assert "frame_bytes_max" in response.text

    def test_pipelined_requests_on_one_connection(self, client: ServerClient) -> None:
        request = b"POST /DictService/seek HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        last = request.replace(b"Host", b"Connection: close\r\nHost")
        with socket.create_connection(client.endpoint, TIMEOUT_S) as connection:
            connection.sendall(request + request + last)
            assert receive_all(connection).count(b"HTTP/1.1 200 OK") == 3


def _send_endlessly(connection: socket.socket, frame: bytes) -> None:
    for _ in range((1 << 30) // len(frame)):
        connection.sendall(frame)


def _is_cut_off(connection: socket.socket) -> bool:
    try:
        connection.sendall(b"x: " + b"y" * 8192 + b"\r\n")
    except ConnectionError:
        return True
    return False


class TestGrpc:
    @pytest.fixture
    def channel(self, shard_server: Role) -> Iterator[grpc.Channel]:
        with grpc.insecure_channel(f"127.0.0.1:{shard_server.port('grpc_port')}") as channel:
            yield channel

    def call(self, channel: grpc.Channel, path: str, payload: bytes) -> bytes:
        method = channel.unary_unary(path, None, None)
        answer: bytes = method(payload, timeout=TIMEOUT_S)
        return answer

    def test_seek(self, channel: grpc.Channel) -> None:
        request = dict_pb2.DictRequest(keys=[5, 10**12], version_required=True)
        answer = self.call(channel, "/rec.mcube.DictService/seek", request.SerializeToString())
        response = dict_pb2.DictResponse.FromString(answer)
        assert [value.status for value in response.values] == [0, MISSING]
        assert response.version == "10_10"

    def test_control(self, channel: grpc.Channel) -> None:
        request = control_pb2.ControlRequest(json='{"cmd":"status"}')
        answer = self.call(channel, "/rec.mcube.ControlService/cmd", request.SerializeToString())
        reply = control_pb2.ControlResponse.FromString(answer)
        assert json.loads(reply.json)["cur_version"] == "10_10"

    @pytest.mark.parametrize(
        ("path", "payload", "code", "text"),
        [
            ("/rec.mcube.DictService/seek", b"\x08\xff", "INVALID_ARGUMENT", "offset"),
            ("/rec.mcube.DictService/seek", b"\x08\x01" * 1501, "RESOURCE_EXHAUSTED", "1500"),
            ("/rec.mcube.DictService/seek", b"\x1a\x0511_11", "FAILED_PRECONDITION", "11_11"),
            ("/rec.mcube.DictService/nope", b"", "UNIMPLEMENTED", ""),
            ("/rec.mcube.ControlService/cmd", b"", "INVALID_ARGUMENT", "JSON"),
            ("/rec.mcube.ControlService/cmd", b"\xff", "INVALID_ARGUMENT", "parse"),
            (
                "/rec.mcube.ControlService/cmd",
                control_pb2.ControlRequest(json='{"cmd":"enable"}').SerializeToString(),
                "FAILED_PRECONDITION",
                "version",
            ),
        ],
    )
    def test_errors(
        self, channel: grpc.Channel, path: str, payload: bytes, code: str, text: str
    ) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(channel, path, payload)
        assert caught.value.code().name == code
        assert text in (caught.value.details() or "")

    def test_health(self, channel: grpc.Channel) -> None:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "rec.mcube.DictService"):
            request = health_pb2.HealthCheckRequest(service=service)
            answer = stub.Check(request, timeout=TIMEOUT_S)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    def test_reflection(self, channel: grpc.Channel) -> None:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        [answer] = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
        names = {service.name for service in answer.list_services_response.service}
        assert {"rec.mcube.DictService", "rec.mcube.ControlService"} <= names
        request = reflection_pb2.ServerReflectionRequest(
            file_containing_symbol="rec.mcube.DictService"
        )
        [answer] = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S)
        [raw] = answer.file_descriptor_response.file_descriptor_proto
        file = descriptor_pb2.FileDescriptorProto.FromString(raw)
        assert [service.name for service in file.service] == ["DictService"]


def test_a_request_that_ends_early_is_not_answered(client: ServerClient) -> None:
    frame = encode_request_frame("DictService", "seek", 1, b"\x08\x01")
    assert exchange(client.endpoint, frame[:-1]) == b""
    assert exchange(client.endpoint, b"PR") == b""
    assert client.seek([1]).values[0].status == 0
