"""Answers that nobody reads are bounded over all connections, whoever made them and whatever wire
they leave by."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import numpy as np
import pytest

from benchmarks.hostile import RssMax, rss_mib
from benchmarks.hostile_peers import seek_frame
from cube_core._native import SeekPlan
from cube_core.wire.limits import WireLimits
from tests.processes import Role, running
from tests.security.certificates import Authority, flags
from tests.server.tables import place_table
from tests.waiting import wait_until

MIB = 1 << 20
UNREAD_MIB = 1
# Each leaves over 64 KiB unread, all together more than the bound.
PEERS = 24


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "ours")


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "tls"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Role]:
    directory = tmp_path_factory.mktemp("unread")
    place_table(directory / "data", 10)
    (directory / "data" / "VERSION").write_text("10_10\n")
    arguments = [
        "--port=0", "--grpc_port=-1", "--data_dir=data",
        f"--unread_bytes_max={UNREAD_MIB * MIB}", "--write_timeout_ms=0",
        *(flags(authority.issue()) if request.param else []),
    ]  # fmt: skip
    with running("cube_server.main", arguments, cwd=directory) as role:
        yield role


def connect(role: Role, tls: bool, ca_file: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.settimeout(10)
    connection.connect(("127.0.0.1", role.port()))
    if not tls:
        return connection
    context = ssl.create_default_context(cafile=ca_file)
    return context.wrap_socket(connection, server_hostname="127.0.0.1")


def http_seek(keys_num: int) -> bytes:
    body = SeekPlan(np.arange(keys_num, dtype=np.uint64), 1).payload(0)
    head = "POST /DictService/seek HTTP/1.1\r\nhost: cube\r\ncontent-type: application/proto\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


# The loop answers what is short, a thread what is long: each peer asks for 6 to 8 MB.
LOOP_KEYS = 5_000
assert len(SeekPlan(np.arange(LOOP_KEYS, dtype=np.uint64), 1).payload(0)) * 2 < (
    WireLimits.loop_payload_bytes_max
)
OPENINGS = {
    "by the loop": seek_frame(LOOP_KEYS) * 100,
    "by threads": seek_frame(100_000) * 6,
    "over http": http_seek(600_000),
}


# Besides what waits: answers in the making, over HTTP of 6 MB for each peer, and what the allocator
# keeps.
MEMORY_MIB_MAX = {"by the loop": 150, "by threads": 200, "over http": 100 + PEERS * 8}


@pytest.mark.parametrize("made", OPENINGS)
def test_unread_answers_are_bounded(
    server: Role, authority: Authority, request: pytest.FixtureRequest, made: str
) -> None:
    tls = "tls" in request.node.callspec.id
    rest_mib = rss_mib(server.process.pid)
    said_before = server.log().count("unread_bytes_max")
    with RssMax(server.process.pid) as rss, contextlib.ExitStack() as stack:
        for _ in range(PEERS):
            connection = stack.enter_context(connect(server, tls, authority.ca_file))
            with contextlib.suppress(OSError):  # cut off already
                connection.sendall(OPENINGS[made])
        wait_until(
            lambda: server.log().count("unread_bytes_max") > said_before, 20, "one is cut off"
        )
    assert rss.mib - rest_mib < MEMORY_MIB_MAX[made]
    assert server.process.poll() is None
