"""Client side of baidu_std: calls, errors and connections, on a loop and blocking."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core._native import (
    Frame,
    encode_error_frame,
    encode_response_frame,
    next_correlation_id,
)
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError, WireError
from cube_core.tls import ClientTls, TlsFiles
from cube_core.wire.frame_reader import FrameReader
from cube_core.wire.prpc_blocking import BlockingConnection
from cube_core.wire.prpc_channel import AsyncChannel
from tests.prpc_peer import LoopThread, Peer
from tests.waiting import wait_until

Call = Callable[..., Frame]


def echo(frame: Frame) -> bytes:
    """Answers with the payload and the attachment; method "fail" with error 1002."""
    if frame.method == "fail":
        return encode_error_frame(frame.correlation_id, 1002, "Fail to find method=S.fail")
    return encode_response_frame(
        frame.correlation_id, bytes(frame.payload), attachment=bytes(frame.attachment)
    )


@pytest.fixture
def peer() -> Iterator[Peer]:
    thread = LoopThread()
    echoing = Peer(thread, echo)
    yield echoing
    echoing.stop()
    thread.close()


@pytest.fixture(params=["async", "blocking"])
def call(request: pytest.FixtureRequest, peer: Peer) -> Iterator[Call]:
    """`call` of one channel; a blocking connection that was lost is made anew, as a channel does
    by itself."""
    with ExitStack() as stack:
        if request.param == "async":
            thread = LoopThread()
            stack.callback(thread.close)
            channel = AsyncChannel(peer.endpoint)
            stack.callback(lambda: thread.run(channel.close()))
            yield lambda *args, **kwargs: thread.run(channel.call(*args, **kwargs))
            return
        connections: list[BlockingConnection] = []

        def call_blocking(*args: str, **kwargs: float) -> Frame:
            if not connections:
                connections.append(BlockingConnection(peer.endpoint))
                stack.callback(connections[0].close)
            try:
                return connections[0].call(*args, **kwargs)  # type: ignore[arg-type]
            except (ConnectError, RpcTimeoutError):
                connections.clear()
                raise

        yield call_blocking


def test_payload_and_attachment_come_back(call: Call) -> None:
    for size in (0, 1, 100, 70_000, 5_000_000):
        answer = call("S", "echo", b"p" * size, timeout_s=20, attachment=b"a" * (size // 2))
        assert bytes(answer.payload) == b"p" * size
        assert bytes(answer.attachment) == b"a" * (size // 2)


def test_request_meta_says_who_and_how_long(call: Call, peer: Peer) -> None:
    seen: list[tuple[str, str, int, int]] = []

    def answer(frame: Frame) -> bytes:
        seen.append((frame.service, frame.method, frame.log_id, frame.timeout_ms))
        return echo(frame)

    peer.answer = answer
    call("pkg.Service", "method", b"", timeout_s=2.5, log_id=77)
    assert seen == [("pkg.Service", "method", 77, 2500)]


def test_an_error_frame_is_an_error_with_its_code(call: Call, peer: Peer) -> None:
    with pytest.raises(RpcError, match=r"S\.fail: Fail to find method") as raised:
        call("S", "fail", b"", timeout_s=5)
    assert raised.value.code == 1002
    assert str(peer.endpoint) in str(raised.value)
    assert bytes(call("S", "echo", b"on", timeout_s=5).payload) == b"on"
    assert peer.connections_num == 1


def test_no_answer_in_time(call: Call, peer: Peer) -> None:
    peer.hold = True
    began_s = time.monotonic()
    with pytest.raises(RpcTimeoutError, match=f"{peer.endpoint}: no answer within 50 ms"):
        call("S", "echo", b"", timeout_s=0.05)
    assert time.monotonic() - began_s < 2
    peer.release()
    assert bytes(call("S", "echo", b"on", timeout_s=5).payload) == b"on"


@pytest.mark.parametrize("data", [b"HTTP/1.1 200 OK\r\n", b"PRPC\0\0\0\1\0\0\0\2?", b"PRPC" * 9])
def test_what_is_no_frame_ends_the_connection(call: Call, peer: Peer, data: bytes) -> None:
    peer.answer = lambda _: data
    with pytest.raises(ConnectError, match=f"{peer.endpoint}: it sent what is no answer") as raised:
        call("S", "echo", b"", timeout_s=5)
    assert isinstance(raised.value.__cause__, WireError)
    peer.answer = echo
    assert bytes(call("S", "echo", b"on", timeout_s=5).payload) == b"on"


def test_the_peer_dies_before_and_between_calls(call: Call, peer: Peer) -> None:
    peer.accepts = False
    with pytest.raises(ConnectError, match=f"{peer.endpoint}: lost before the answer"):
        call("S", "echo", b"", timeout_s=5)
    peer.stop()
    with pytest.raises(ConnectError, match=f"{peer.endpoint}: no connection"):
        call("S", "echo", b"", timeout_s=5)
    peer.accepts = True
    peer.start()
    assert bytes(call("S", "echo", b"on", timeout_s=5).payload) == b"on"


async def test_many_calls_answered_in_any_order(peer: Peer) -> None:
    channel = AsyncChannel(peer.endpoint)
    peer.hold = True
    calls = [
        asyncio.ensure_future(channel.call("S", "echo", b"%d" % i, timeout_s=20))
        for i in range(200)
    ]
    all_held = lambda: peer.held_num == 200  # noqa: E731
    await asyncio.to_thread(wait_until, all_held, 10.0, "200 requests at the peer")
    await asyncio.to_thread(peer.release)
    answers = await asyncio.gather(*calls)
    assert [bytes(answer.payload) for answer in answers] == [b"%d" % i for i in range(200)]
    assert peer.connections_num == 1
    await channel.close()


async def test_a_lost_connection_fails_all_that_is_pending(peer: Peer) -> None:
    channel = AsyncChannel(peer.endpoint)
    peer.hold = True
    calls = [asyncio.ensure_future(channel.call("S", "echo", b"", timeout_s=20)) for _ in range(20)]
    all_held = lambda: peer.held_num == 20  # noqa: E731
    await asyncio.to_thread(wait_until, all_held, 10.0, "20 requests at the peer")
    await asyncio.to_thread(peer.stop)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, ConnectError) for outcome in outcomes)
    await channel.close()


async def test_a_peer_that_went_silent_gets_a_new_connection(peer: Peer) -> None:
    channel = AsyncChannel(peer.endpoint)
    await channel.call("S", "echo", b"", timeout_s=5)
    peer.answer = lambda frame: echo(frame)[:5]
    with pytest.raises(RpcTimeoutError):
        await channel.call("S", "echo", b"", timeout_s=0.05)
    peer.answer = echo
    await channel.call("S", "echo", b"", timeout_s=5)
    assert peer.connections_num == 2
    await channel.close()


async def test_a_call_that_gives_up_leaves_the_patient_ones_alone(peer: Peer) -> None:
    channel = AsyncChannel(peer.endpoint)
    peer.hold = True
    patient = asyncio.ensure_future(channel.call("S", "echo", b"patient", timeout_s=20))
    with pytest.raises(RpcTimeoutError):
        await channel.call("S", "echo", b"", timeout_s=0.05)
    await asyncio.to_thread(peer.release)
    assert bytes((await patient).payload) == b"patient"
    await channel.close()


async def test_a_closed_channel_says_so(peer: Peer) -> None:
    channel = AsyncChannel(peer.endpoint)
    pending = asyncio.ensure_future(channel.call("S", "echo", b"", timeout_s=5))
    await asyncio.wait([pending], timeout=0)
    await channel.close()
    for attempt in (pending, channel.call("S", "echo", b"", timeout_s=5)):
        with pytest.raises(ConnectError, match="the channel is closed"):
            await attempt


async def test_requests_a_peer_does_not_read_are_limited(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cube_core.wire.prpc_channel.WRITE_BUFFER_BYTES_MAX", 1 << 20)
    channel = AsyncChannel(peer.endpoint)
    await channel.call("S", "echo", b"", timeout_s=5)
    calls = [
        asyncio.ensure_future(channel.call("S", "echo", bytes(8 << 20), timeout_s=30))
        for _ in range(4)
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, RpcError)]
    assert 0 < len(refused) < 4
    assert all("WRITE_BUFFER_BYTES_MAX" in str(e) and e.code == 1011 for e in refused)
    await channel.close()


def test_a_blocking_connection_drops_answers_to_others(peer: Peer) -> None:
    peer.answer = lambda frame: encode_response_frame(next_correlation_id(), b"") + echo(frame)
    connection = BlockingConnection(peer.endpoint)
    assert bytes(connection.call("S", "echo", b"mine", timeout_s=5).payload) == b"mine"
    connection.close()
    with pytest.raises(ConnectError, match="the connection is closed"):
        connection.call("S", "echo", b"", timeout_s=5)


@pytest.mark.parametrize("host", ["no..such host", "", "a" * 70])
def test_a_host_without_address(host: str) -> None:
    with pytest.raises(ConnectError, match="no connection"):
        BlockingConnection(Endpoint(host, 1)).call("S", "m", b"", timeout_s=1)


@given(
    payloads=st.lists(st.binary(max_size=50), max_size=8),
    cuts=st.lists(st.integers(0, 600), max_size=12),
)
def test_frames_come_whole_from_pieces_of_any_size(payloads: list[bytes], cuts: list[int]) -> None:
    frames = [encode_response_frame(i, payload) for i, payload in enumerate(payloads)]
    data = b"".join(frames)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = FrameReader()
    read: list[Frame] = []
    for start, end in itertools.pairwise(edges):
        read += reader.feed(data[start:end])
        assert reader.missing_bytes > 0
    assert [bytes(frame.payload) for frame in read] == payloads
    assert [frame.correlation_id for frame in read] == list(range(len(payloads)))


@given(st.binary(min_size=1, max_size=200), st.integers(1, 200))
def test_any_bytes_are_frames_or_refused(data: bytes, piece_bytes: int) -> None:
    reader = FrameReader(1 << 16)
    try:
        for start in range(0, len(data), piece_bytes):
            reader.feed(data[start : start + piece_bytes])
    except WireError as error:
        problem = str(error)
    else:
        assert data[:4] == b"PRPC"[: len(data)] or len(data) < 12
        return
    assert problem


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")
def test_a_server_name_that_is_none_is_no_connection(peer: Peer) -> None:
    connection = BlockingConnection(peer.endpoint, tls=ClientTls(TlsFiles(), ".example.com"))
    with pytest.raises(ConnectError, match=r"no TLS connection: .*empty or too long"):
        connection.call("S", "echo", b"", timeout_s=10)


@pytest.mark.filterwarnings("ignore:unclosed <ssl:ResourceWarning")
def test_a_connection_that_is_reset_before_tls_begins_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint(*listener.getsockname())
        connection = BlockingConnection(endpoint, tls=ClientTls(TlsFiles()))
        accepted, _ = listener.accept()

        def is_writable() -> bool:
            """The last look at the socket before TLS begins."""
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()
            return True

        monkeypatch.setattr(connection, "_is_writable", is_writable)
        with pytest.raises(ConnectError, match="no TLS connection"):
            connection.call("S", "echo", b"", timeout_s=10)
