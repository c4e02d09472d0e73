"""Answers that nobody reads, at the connection of the peer that leaves them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core._native import Seeker, encode_request_frame
from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.prpc_protocol import PrpcProtocol
from cube_core.wire.unread import UnreadAnswers
from cube_proto import dict_pb2
from tests.server.mock_connection import Commands, MockTransport, answered, services, until

LIMITS = WireLimits(
    frame_bytes_max=1 << 20, loop_payload_bytes_max=100, threads_per_connection_max=2
)
# Over what is answered on the loop, and what a kernel is given without a thread.
LONG_SEEK = dict_pb2.DictRequest(keys=[1] * 2000).SerializeToString()


class Peer:
    def __init__(self, unread_bytes: int) -> None:
        self.unread_bytes = unread_bytes
        self.reasons: list[str] = []

    def cut_off(self, reason: str) -> None:
        self.reasons.append(reason)


def connect(seeker: Seeker, connections: Connections) -> tuple[PrpcProtocol, MockTransport]:
    table = services(seeker, Commands())
    protocol = PrpcProtocol(table, LIMITS, connections, seeker)
    transport = MockTransport()
    protocol.connection_made(transport)
    return protocol, transport


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), max_size=40))
def test_what_waits_never_stays_over_the_limit(changes: list[tuple[int, int]]) -> None:
    unread = UnreadAnswers(100)
    peers = [Peer(0) for _ in range(5)]
    counted: set[Peer] = set()
    for number, unread_bytes in changes:
        peer = peers[number]
        peer.unread_bytes = unread_bytes
        counted.add(peer)
        most = unread.update(peer)
        total = sum(each.unread_bytes for each in counted)
        assert (most is not None) == (total > 100)
        if most is not None:
            assert isinstance(most, Peer)
            assert most.unread_bytes == max(each.unread_bytes for each in counted)
            counted.discard(most)
    for peer in peers:
        unread.forget(peer)
    assert unread.bytes == 0


def test_a_peer_that_has_read_meanwhile_is_not_charged() -> None:
    unread = UnreadAnswers(100)
    slow, other = Peer(90), Peer(20)
    assert unread.update(slow) is None
    slow.unread_bytes = 10
    assert unread.update(other) is None
    assert unread.bytes == 30


async def test_long_requests_of_one_peer_do_not_fill_the_threads(seeker: Seeker) -> None:
    protocol, transport = connect(seeker, Connections(10))
    frames = [encode_request_frame("DictService", "seek", i, LONG_SEEK) for i in range(10)]
    protocol.data_received(b"".join(frames))
    assert not transport.reading
    found = await answered(transport, 10)
    assert sorted(frame.correlation_id for frame in found) == list(range(10))
    assert not any(frame.error_code for frame in found)
    await until(transport, lambda: transport.reading)


async def test_nothing_is_begun_for_a_peer_that_reads_nothing(seeker: Seeker) -> None:
    protocol, transport = connect(seeker, Connections(10))
    protocol.pause_writing()
    asked = seeker.request_count
    protocol.data_received(encode_request_frame("DictService", "seek", 1, LONG_SEEK) * 20)
    for _ in range(20):
        await asyncio.sleep(0)
    assert seeker.request_count == asked
    protocol.resume_writing()
    await answered(transport, 20)
    assert seeker.request_count == asked + 20


async def test_a_drain_waits_for_what_waits_for_its_peer(seeker: Seeker) -> None:
    protocol, transport = connect(seeker, Connections(10))
    protocol.data_received(encode_request_frame("DictService", "seek", 1, LONG_SEEK) * 3)
    protocol.pause_writing()
    protocol.drain()
    await answered(transport, LIMITS.threads_per_connection_max)
    assert not transport.eof_written
    protocol.resume_writing()
    await answered(transport, 3)
    await until(transport, lambda: transport.eof_written)


async def test_the_peer_with_the_most_unread_is_cut_off(
    seeker: Seeker, caplog: pytest.LogCaptureFixture
) -> None:
    connections = Connections(10, unread_bytes_max=1000)
    (modest, its_transport), (greedy, transport) = (connect(seeker, connections) for _ in range(2))
    transport.unread_bytes = 900
    greedy.pause_writing()
    its_transport.unread_bytes = 200
    modest.pause_writing()
    await until(transport, lambda: transport.closed)
    assert not its_transport.closed
    assert "unread_bytes_max" in caplog.text
    assert connections.counters.peers_cut_off == 1
