"""Limits of the wire, at the connection of a peer that goes over them."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_core._native import Seeker, cpu_level, encode_request_frame, parse_frames
from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.prpc_protocol import PrpcProtocol
from cube_proto import dict_pb2
from tests.processes import Role, running
from tests.server.client import TIMEOUT_S, ServerClient, receive_all
from tests.server.mock_connection import (
    LIMITS,
    REQUEST,
    RESPONSE,
    Commands,
    MockTransport,
    answered,
    connect,
    services,
    until,
)
from tests.server.tables import place_table
from tests.waiting import wait_until

FLAGS = [
    "--idle_timeout_ms=600",
    "--frame_timeout_ms=300",
    "--write_timeout_ms=500",
    "--connections_max=40",
    "--in_flight_max=4",
]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    """A server process that waits for nobody for long."""
    directory = tmp_path_factory.mktemp("impatient")
    place_table(directory / "data", 10)
    (directory / "data" / "VERSION").write_text("10_10\n")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", *FLAGS]
    with running("cube_server.main", arguments, cwd=directory) as role:
        yield role


def connection_to(role: Role) -> socket.socket:
    return socket.create_connection(("127.0.0.1", role.port()), TIMEOUT_S)


def seconds_until_closed(connection: socket.socket) -> float:
    started = time.monotonic()
    receive_all(connection)
    return time.monotonic() - started


@pytest.mark.parametrize("sent", [b"", REQUEST], ids=["silent", "after_a_request"])
def test_idle_connections_are_closed(impatient: Role, sent: bytes) -> None:
    with connection_to(impatient) as connection:
        connection.sendall(sent)
        assert 0.5 < seconds_until_closed(connection) < 3


@pytest.mark.parametrize(
    "sent",
    [
        b"PR",
        REQUEST[:5],
        REQUEST[:40],
        REQUEST + REQUEST[:40],
        b"GET /health HTTP/1.1\r\nhost:",
        b"POST /DictService/seek HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{",
    ],
    ids=["start", "head", "frame", "second_frame", "http_head", "http_body"],
)
def test_requests_must_come_whole_in_time(impatient: Role, sent: bytes) -> None:
    with connection_to(impatient) as connection:
        connection.sendall(sent)
        assert 0.2 < seconds_until_closed(connection) < 2
    wait_until(lambda: "frame_timeout_ms=300" in impatient.log())


def test_a_request_that_trickles_is_cut_off(impatient: Role) -> None:
    """Bytes that keep coming do not buy more time."""
    started = time.monotonic()
    with connection_to(impatient) as connection:
        trickle = itertools.cycle(REQUEST[12:])
        connection.sendall(REQUEST[:4] + (50_000_000).to_bytes(4, "big") + REQUEST[8:])

        def closed() -> bool:
            try:
                connection.sendall(bytes([next(trickle)]))
            except OSError:
                return True
            return False

        wait_until(closed, TIMEOUT_S)
    assert time.monotonic() - started < 3


def test_requests_that_keep_coming_are_answered_for_longer_than_a_frame_may_take(
    impatient: Role,
) -> None:
    """Every read ends inside a frame, and still each frame is in time."""
    frames = REQUEST * 2
    with connection_to(impatient) as connection:
        connection.sendall(frames[:20])
        received, sent, started = b"", 20, time.monotonic()
        while time.monotonic() - started < 0.8:
            connection.sendall(REQUEST[20:] + REQUEST[:20])
            sent += len(REQUEST)
            while len(received) < (sent // len(REQUEST)) * len(RESPONSE):
                received += connection.recv(65536)
        assert sent > 10 * len(REQUEST)


def test_a_peer_that_reads_nothing_is_cut_off(impatient: Role) -> None:
    payload = dict_pb2.DictRequest(keys=[7] * 100_000).SerializeToString()
    frame = encode_request_frame("DictService", "seek", 1, payload)
    with connection_to(impatient) as connection:
        connection.sendall(frame)
        wait_until(lambda: "write_timeout_ms=500" in impatient.log())
        connection.settimeout(TIMEOUT_S)
        assert len(receive_all(connection)) < 100_000 * 40
    with ServerClient(impatient) as client:
        assert len(client.seek([1, 2]).values) == 2


def test_many_idle_connections_do_not_keep_others_out(impatient: Role) -> None:
    idle = [connection_to(impatient) for _ in range(40)]
    try:
        for connection in idle:
            receive_all(connection)
        with ServerClient(impatient) as client:
            assert client.status()["counters"]["connections_idle"] >= 40
            assert client.status()["limits"]["idle_timeout_ms"] == 600
            assert client.status()["cpu"] == cpu_level()
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize(
    "argument",
    [
        "--idle_timeout_ms=-1",
        "--frame_timeout_ms=x",
        "--in_flight_max=0",
        "--write_buffer_bytes_max=10",
        "--partial_bytes_max=0",
    ],
)
def test_limits_out_of_range_are_refused(tmp_path: Path, argument: str) -> None:
    with (
        pytest.raises(AssertionError, match=argument.partition("=")[0].lstrip("-")),
        running("cube_server.main", ["--port=0", argument], cwd=tmp_path),
    ):
        pass


# ------------------------------------------------------------------------------ without a socket


async def test_one_read_begins_no_more_than_in_flight_max(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    frames = [encode_request_frame("ControlService", "cmd", i, b"x") for i in range(10)]
    protocol.data_received(b"".join(frames) + REQUEST)
    assert not transport.reading
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(commands.contexts) == LIMITS.in_flight_max
    commands.released.set()
    found = await answered(transport, 11)
    assert sorted(frame.correlation_id for frame in found) == sorted([*range(10), 6])
    await until(transport, lambda: transport.reading)


async def test_answers_stop_while_the_peer_does_not_read(seeker: Seeker) -> None:
    """Small requests with large answers: one read of them makes no endless buffer."""
    protocol, transport = connect(seeker)
    request = dict_pb2.DictRequest(keys=[1] * 1000).SerializeToString()
    frame = encode_request_frame("DictService", "seek", 1, request)
    count = 200
    writes = 0

    def write(data: bytes) -> None:
        nonlocal writes
        writes += 1
        transport.written += data
        protocol.pause_writing()

    transport.write = write  # type: ignore[method-assign]
    protocol.data_received(frame * count)
    assert len(transport.written) < 3 << 20
    while len(parse_frames(transport.written, 1 << 26)[0]) < count:
        before = writes
        protocol.resume_writing()
        await until(transport, lambda before=before: writes > before or transport.closed)  # type: ignore[misc]
    assert writes > 3


async def test_an_answer_over_write_buffer_bytes_max_cuts_the_peer_off(
    seeker: Seeker, caplog: pytest.LogCaptureFixture
) -> None:
    commands = Commands()
    commands.released.set()
    protocol, transport = connect(seeker, commands=commands)
    transport.unread_bytes = LIMITS.write_buffer_bytes_max
    protocol.data_received(encode_request_frame("ControlService", "cmd", 1, b"x"))
    await until(transport, lambda: transport.closed)
    assert "write_buffer_bytes_max" in caplog.text
    assert transport.written == b""


async def test_frames_that_are_not_whole_are_bounded_over_all_connections(
    seeker: Seeker, caplog: pytest.LogCaptureFixture
) -> None:
    connections = Connections(10)
    limits = WireLimits(partial_bytes_max=100)
    pairs = []
    for _ in range(3):
        protocol = PrpcProtocol(services(seeker, Commands()), limits, connections, seeker)
        transport = MockTransport()
        protocol.connection_made(transport)
        protocol.data_received(REQUEST[:20])
        pairs.append((protocol, transport))
    for protocol, _ in pairs:
        protocol.data_received(REQUEST[20:35])
    assert [transport.closed for _, transport in pairs] == [False, False, True]
    assert "partial_bytes_max=100" in caplog.text
    pairs[0][0].data_received(REQUEST[35:])
    assert pairs[0][1].written == RESPONSE
    for protocol, _ in pairs:
        protocol.connection_lost(None)
    assert connections.partial_bytes == 0
