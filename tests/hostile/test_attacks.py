"""A real server under attack: healthy clients hardly notice, and its memory stays bounded.

What the tests assert is looser than the promise (p99 within twice that at rest), as their machine
may be shared and their samples are few; `benchmarks/hostile.py` measures the promise.
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.hostile import RssMax, attacking, rss_mib
from benchmarks.hostile_peers import ATTACKS, seek_frame
from cube_api import CubeClient, DictConf
from cube_core._native import SeekPlan
from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.server.tables import DICT_NAME, KEY_COUNT, place_table
from tests.waiting import wait_until

MIB = 1 << 20
P99_RATIO_MAX = 5
P99_SLACK_MS = 20
ROUNDS = 3
ROUND_S = 0.4
PARTIAL_MIB, UNREAD_MIB = 32, 32
# The rest is answers in the making, 8 for each of 8 peers, each with room for 50,000 values of 40
# bytes; and what the allocator keeps.
ATTACKED_MIB_MAX = PARTIAL_MIB + UNREAD_MIB + 64 * 50_000 * 46 / MIB + 128
FLAGS = [
    f"--partial_bytes_max={PARTIAL_MIB * MIB}",
    f"--unread_bytes_max={UNREAD_MIB * MIB}",
    "--frame_timeout_ms=1500",
    "--write_timeout_ms=1500",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    directory = tmp_path_factory.mktemp("attacked")
    place_table(directory / "data", 10)
    (directory / "data" / "VERSION").write_text("10_10\n")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", *FLAGS]
    with running("cube_server.main", arguments, cwd=directory) as role:
        yield role


@pytest.fixture
def healthy(server: Role) -> Iterator[CubeClient]:
    node = {"ip": "127.0.0.1", "port": server.port()}
    conf = DictConf.model_validate(
        {"dict_name": DICT_NAME, "shard": 1, "timeout": 5000, "nodes": [node]}
    )
    with CubeClient({DICT_NAME: conf}) as client:
        yield client


def p99_ms(client: CubeClient) -> float:
    """Of seeks of 26 keys, one after the other for ROUND_S; all must be answered in full."""
    keys = np.arange(26, dtype=np.uint64)
    elapsed_ms = []
    end_s = time.perf_counter() + ROUND_S
    while time.perf_counter() < end_s:
        begin_s = time.perf_counter()
        result = client.seek(DICT_NAME, keys)
        elapsed_ms.append((time.perf_counter() - begin_s) * 1000)
        assert not result.status.any()
    return float(np.percentile(elapsed_ms, 99))


@pytest.mark.parametrize("attack", ATTACKS)
def test_healthy_clients_are_served_under_attack(
    server: Role, healthy: CubeClient, attack: str
) -> None:
    rest_ms = statistics.median(p99_ms(healthy) for _ in range(ROUNDS))
    rest_mib = rss_mib(server.process.pid)
    with RssMax(server.process.pid) as rss, attacking(attack, server.port()):
        attacked_ms = statistics.median(p99_ms(healthy) for _ in range(ROUNDS))
    assert attacked_ms < P99_RATIO_MAX * rest_ms + P99_SLACK_MS
    assert rss.mib - rest_mib < ATTACKED_MIB_MAX
    assert server.process.poll() is None


def test_frames_that_never_end_take_no_more_than_partial_bytes_max(server: Role) -> None:
    """Not a trickle: ten peers send all but the last byte of frames of 20 MiB at once."""
    size = 20 * MIB
    frame = seek_frame(1)
    head = b"PRPC" + size.to_bytes(4, "big") + frame[8:12]
    body = frame[12:].ljust(size - 1, b"\0")
    rest_mib = rss_mib(server.process.pid)
    with RssMax(server.process.pid) as rss, ServerClient(server) as client:
        connections = [
            socket.create_connection(("127.0.0.1", server.port()), 10) for _ in range(10)
        ]
        try:
            for connection in connections:
                with contextlib.suppress(OSError):  # cut off before the end
                    connection.sendall(head + body)
            assert client.seek([1, 2]).values[0].status == 0
        finally:
            for connection in connections:
                connection.close()
        assert "partial_bytes_max" in server.log()
    assert rss.mib - rest_mib < PARTIAL_MIB + 64


def test_whoever_attacks_is_cut_off_and_counted(server: Role) -> None:
    with ServerClient(server) as client:
        before = client.status()["counters"]["peers_cut_off"]
        with attacking("never_reads", server.port()):
            wait_until(
                lambda: client.status()["counters"]["peers_cut_off"] >= before + 8, 15, "cut off"
            )
        assert client.seek([KEY_COUNT]).values[0].status == 0xFFFFFFFF
    assert "write_timeout_ms" in server.log() or "unread_bytes_max" in server.log()


def test_a_peer_that_vanished_is_no_connection_for_ever(tmp_path: Path) -> None:
    """The other half of a half-open connection sends nothing, not even that it is gone."""
    place_table(tmp_path / "data", 10)
    (tmp_path / "data" / "VERSION").write_text("10_10\n")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", "--idle_timeout_ms=500"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        silent = [socket.create_connection(("127.0.0.1", role.port()), 10) for _ in range(50)]
        try:
            for connection in silent[:25]:
                connection.sendall(seek_frame(1)[:6])

            def open_connections() -> int:
                with ServerClient(role) as client:
                    return int(client.status()["counters"]["connections"])

            wait_until(lambda: open_connections() == 1, 15, "idle connections are closed")
        finally:
            for connection in silent:
                connection.close()


def test_answers_over_http_that_nobody_reads_are_bounded(server: Role) -> None:
    """12 peers leave answers of 8 MB unread, more than the buffers on the way take."""
    body = SeekPlan(np.arange(800_000, dtype=np.uint64), 1).payload(0)
    head = (
        "POST /DictService/seek HTTP/1.1\r\nhost: cube\r\ncontent-type: application/proto\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    address = ("127.0.0.1", server.port())
    connections = [socket.create_connection(address, 10) for _ in range(12)]
    try:
        for connection in connections:
            connection.sendall(head.encode() + body)
        wait_until(lambda: "unread_bytes_max" in server.log(), 10, "one is cut off")
    finally:
        for connection in connections:
            connection.close()
