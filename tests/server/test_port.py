"""The start of a connection says who speaks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cube_core._native import Seeker
from cube_core.wire.connections import Connections
from cube_core.wire.port import PortProtocol
from cube_core.wire.prpc_protocol import PrpcProtocol
from tests.server.mock_connection import (
    LIMITS,
    REQUEST,
    RESPONSE,
    Commands,
    MockTransport,
    services,
)


def open_port(seeker: Seeker, connections: Connections) -> tuple[PortProtocol, MockTransport]:
    http_ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    table = services(seeker, Commands())
    protocol = PortProtocol(
        LIMITS, connections, lambda: PrpcProtocol(table, LIMITS, connections, seeker), http_ready
    )
    transport = MockTransport()
    protocol.connection_made(transport)
    return protocol, transport


async def test_baidu_std_is_told_by_its_first_bytes(seeker: Seeker) -> None:
    for cut in (1, 3, 4, 20):
        protocol, transport = open_port(seeker, Connections(1))
        protocol.data_received(REQUEST[:cut])
        speaker = protocol if transport.protocol is None else transport.protocol
        assert isinstance(speaker, asyncio.Protocol)
        speaker.data_received(REQUEST[cut:])
        assert transport.written == RESPONSE


async def test_what_is_neither_is_closed(seeker: Seeker) -> None:
    connections = Connections(1)
    protocol, transport = open_port(seeker, connections)
    protocol.data_received(b"\x16\x03\x01\x00")
    assert (transport.closed, transport.written) == (True, b"")
    assert connections.counters.peers_cut_off == 1


async def test_http_waits_for_its_app_unread(seeker: Seeker) -> None:
    protocol, transport = open_port(seeker, Connections(1))
    protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert not transport.reading
    assert not transport.closed


async def test_connections_over_the_limit_are_refused(
    seeker: Seeker, caplog: pytest.LogCaptureFixture
) -> None:
    connections = Connections(1)
    _, first = open_port(seeker, connections)
    _, second = open_port(seeker, connections)
    assert (first.closed, second.closed) == (False, True)
    assert "connections_max=1" in caplog.text
