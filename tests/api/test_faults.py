"""Servers that fail: a named error within the timeout, never zeros, and the client goes on."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest

from cube_api import (
    ConnectError,
    CubeClient,
    RpcError,
    SeekTimeoutError,
    ShardError,
    VersionNotLoadedError,
    WireError,
)
from cube_core._native import (
    Frame,
    encode_error_frame,
    encode_request_frame,
    encode_response_frame,
)
from cube_core.endpoint import Endpoint
from cube_proto.dict_pb2 import DictResponse
from tests.api.conftest import NewClient
from tests.api.peers import Client, conf_of, expected_rows
from tests.prpc_peer import Answer, Peer

KEYS = np.arange(10, dtype=np.uint64)
TIMEOUT_MS = 150


def one_value(frame: Frame) -> bytes:
    response = DictResponse()
    response.values.add(status=0, value=bytes(16))
    return encode_response_frame(frame.correlation_id, response.SerializeToString())


FAULTS: dict[str, tuple[Answer, type[Exception], str, type[Exception] | None]] = {
    "garbage": (lambda _: b"HTTP/1.1 400 Bad\r\n\r\n", ShardError, "sent what is no answer", None),
    "a request": (
        lambda frame: encode_request_frame("S", "m", frame.correlation_id, b""),
        ShardError,
        "a request instead of an answer",
        ConnectError,
    ),
    "oversized frame": (
        lambda _: b"PRPC" + b"\x7f\xff\xff\xff" + b"\0\0\0\2",
        ShardError,
        "sent what is no answer",
        ConnectError,
    ),
    "half a frame": (lambda frame: one_value(frame)[:20], SeekTimeoutError, "no answer", None),
    "nothing": (lambda _: b"", SeekTimeoutError, "no answer within 150 ms", None),
    "another correlation id": (
        lambda frame: encode_response_frame(frame.correlation_id + (1 << 40), b""),
        SeekTimeoutError,
        "no answer within 150 ms",
        None,
    ),
    "too few values": (one_value, ShardError, "malformed answer", WireError),
    "no protobuf": (
        lambda frame: encode_response_frame(frame.correlation_id, b"\xff\xff\xff"),
        ShardError,
        "malformed answer",
        WireError,
    ),
    "1002": (
        lambda frame: encode_error_frame(frame.correlation_id, 1002, "Fail to find method=x"),
        ShardError,
        "Fail to find method=x",
        RpcError,
    ),
    "2004": (
        lambda frame: encode_error_frame(frame.correlation_id, 2004, "keys_per_request_max=5"),
        ShardError,
        "keys_per_request_max=5",
        RpcError,
    ),
    "2001": (
        lambda frame: encode_error_frame(frame.correlation_id, 2001, "no version is loaded"),
        VersionNotLoadedError,
        "no version is loaded",
        RpcError,
    ),
    "2003": (
        lambda frame: encode_error_frame(frame.correlation_id, 2003, "is stopping"),
        ShardError,
        "3 attempts failed, the last: .*is stopping",
        RpcError,
    ),
}


def client_for(any_client: NewClient, peers: list[Peer]) -> Client:
    return any_client(conf_of([[peer.endpoint] for peer in peers], timeout=TIMEOUT_MS))


def check_works(client: Client) -> None:
    rows, status = client.seek("d", KEYS, timeout_ms=5000)
    assert not status.any()
    np.testing.assert_array_equal(rows, expected_rows(KEYS, "1_1"))


def check_fails(client: Client, error: type[Exception], problem: str, port: int) -> Exception:
    began_s = time.monotonic()
    with pytest.raises(error, match=problem) as raised:
        client.seek("d", KEYS)
    assert time.monotonic() - began_s < 2
    assert "shard 1" in str(raised.value)
    assert f"127.0.0.1:{port}" in str(raised.value)
    return raised.value


@pytest.mark.parametrize("was_connected", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_answer(
    any_client: NewClient, two_shards: list[Peer], fault: str, was_connected: bool
) -> None:
    answer, error, problem, cause = FAULTS[fault]
    client = client_for(any_client, two_shards)
    if was_connected:
        check_works(client)
    sound, two_shards[1].answer = two_shards[1].answer, answer
    raised = check_fails(client, error, problem, two_shards[1].port)
    if cause is not None:
        assert isinstance(raised.__cause__, cause)
    two_shards[1].answer = sound
    check_works(client)


@pytest.mark.parametrize("was_connected", [False, True])
def test_closes_after_accept(
    any_client: NewClient, two_shards: list[Peer], was_connected: bool
) -> None:
    client = client_for(any_client, two_shards)
    if was_connected:
        check_works(client)
        two_shards[1].stop()
        two_shards[1].start()
    two_shards[1].accepts = False
    raised = check_fails(client, ShardError, "3 attempts failed", two_shards[1].port)
    assert isinstance(raised.__cause__, ConnectError)
    two_shards[1].accepts = True
    check_works(client)


@pytest.mark.parametrize("was_connected", [False, True])
def test_a_server_that_dies_and_comes_back(
    any_client: NewClient, two_shards: list[Peer], was_connected: bool
) -> None:
    client = client_for(any_client, two_shards)
    if was_connected:
        check_works(client)
    two_shards[1].stop()
    raised = check_fails(client, ShardError, "no connection", two_shards[1].port)
    assert isinstance(raised.__cause__, ConnectError)
    two_shards[1].start()
    check_works(client)


def test_a_restart_between_two_seeks_goes_unnoticed(
    any_client: NewClient, two_shards: list[Peer]
) -> None:
    client = any_client(conf_of([[peer.endpoint] for peer in two_shards], retry=1))
    check_works(client)
    for peer in two_shards:
        peer.stop()
        peer.start()
    check_works(client)


def test_stale_connections_cost_no_retry(two_shards: list[Peer]) -> None:
    with CubeClient(conf_of([[peer.endpoint] for peer in two_shards], retry=0)) as client:
        check_works(client)
        for peer in two_shards:
            peer.stop()
            peer.start()
        check_works(client)


def test_a_late_answer_is_dropped(any_client: NewClient, two_shards: list[Peer]) -> None:
    client = client_for(any_client, two_shards)
    check_works(client)
    two_shards[1].hold = True
    check_fails(client, SeekTimeoutError, "no answer within 150 ms", two_shards[1].port)
    two_shards[1].release()
    check_works(client)


def test_nobody_accepts(any_client: NewClient, two_shards: list[Peer]) -> None:
    """A full listen queue: packets are dropped, as from a host that is gone."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            gone = Endpoint(*full.getsockname())
            endpoints = [[two_shards[0].endpoint], [gone]]
            client = any_client(conf_of(endpoints, timeout=TIMEOUT_MS))
            check_fails(client, SeekTimeoutError, "no answer within 150 ms", gone.port)
            endpoints[1].append(two_shards[1].endpoint)
            client = any_client(conf_of(endpoints, timeout=2 * TIMEOUT_MS))
            assert client.seek("d", KEYS).status.tolist() == [0] * len(KEYS)
        finally:
            for filler in fillers:
                filler.close()


def test_no_such_host(any_client: NewClient, two_shards: list[Peer]) -> None:
    nodes = [{"ip": "127.0.0.1", "port": two_shards[0].port}, {"ip": "no..such host", "port": 1}]
    client = any_client(conf_of([[], []], type="ipport", nodes=nodes))
    with pytest.raises(ShardError, match=r"shard 1 \(no\.\.such host:1\): 3 attempts failed"):
        client.seek("d", KEYS)
