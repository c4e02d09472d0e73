"""The baidu_std protocol, driven by bytes: no sockets."""

from __future__ import annotations

import asyncio
import itertools
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_core._native import Seeker, encode_request_frame, parse_frames
from cube_core.wire.service import Service
from cube_proto import baidu_rpc_meta_pb2, control_pb2, dict_pb2
from tests.server.mock_connection import (
    LIMITS,
    REQUEST,
    RESPONSE,
    Commands,
    answered,
    connect,
    error_of,
    until,
)


async def test_answers_the_original_client_byte_for_byte(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(REQUEST)
    assert transport.written == RESPONSE


async def test_answers_the_same_without_the_fast_path(seeker: Seeker) -> None:
    protocol, transport = connect(seeker, fast=False)
    protocol.data_received(REQUEST)
    await answered(transport, 1)
    assert transport.written == RESPONSE


async def test_frames_may_be_cut_anywhere(seeker: Seeker) -> None:
    two = REQUEST + REQUEST
    for cut in range(1, len(two)):
        protocol, transport = connect(seeker)
        protocol.data_received(two[:cut])
        protocol.data_received(two[cut:])
        assert transport.written == RESPONSE * 2


async def test_bytes_may_come_one_at_a_time(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    for byte in REQUEST * 2:
        protocol.data_received(bytes([byte]))
    assert transport.written == RESPONSE * 2


async def test_a_pipeline_is_answered_in_one_write_in_order(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    frames = b"".join(
        encode_request_frame("DictService", "seek", number, b"\x08\x01") for number in range(1, 50)
    )
    protocol.data_received(frames)
    ids = [frame.correlation_id for frame in parse_frames(transport.written, 1 << 20)[0]]
    assert ids == list(range(1, 50))


async def test_a_slow_request_holds_up_nothing_behind_it(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    slow = encode_request_frame(
        "ControlService", "cmd", 7, b"x", attachment=b"abc", timeout_ms=500, log_id=9
    )
    protocol.data_received(slow + REQUEST)
    assert transport.written == RESPONSE
    commands.released.set()
    frame = (await answered(transport, 2))[1]
    assert (frame.correlation_id, bytes(frame.payload), bytes(frame.attachment)) == (
        7,
        b"x",
        b"cba",
    )
    context = commands.contexts[0]
    assert (context.peer, context.log_id) == ("127.0.0.1:5000", 9)
    assert context.deadline_s is not None


async def test_large_seeks_are_answered_off_the_loop(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    # Ten bytes a key: 4097 bytes are over the limit of this test's loop_payload_bytes_max.
    payload = dict_pb2.DictRequest(keys=[2**64 - 1] * 500).SerializeToString()
    assert len(payload) > LIMITS.loop_payload_bytes_max
    protocol.data_received(encode_request_frame("DictService", "seek", 5, payload) + REQUEST)
    frames = await answered(transport, 2)
    assert [frame.correlation_id for frame in frames] == [6, 5]
    large = dict_pb2.DictResponse.FromString(bytes(frames[1].payload))
    assert [value.status for value in large.values] == [0xFFFFFFFF] * 500


@pytest.mark.parametrize(
    ("service", "method", "code", "text"),
    [
        ("rec.mcube.Nope", "seek", 1002, "Fail to find method=rec.mcube.Nope/seek"),
        ("DictService", "nope", 1002, "Fail to find method=DictService/nope"),
    ],
)
async def test_unknown_methods_are_named(
    seeker: Seeker, service: str, method: str, code: int, text: str
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(encode_request_frame(service, method, 3, b"") + REQUEST)
    assert transport.written.startswith(RESPONSE), "the request behind it is answered"
    error = error_of(transport.written.removeprefix(RESPONSE))
    assert error == (3, code, f"[127.0.0.1:8000][E{code}]{text}")
    assert not transport.closed


def raw_frame(meta: baidu_rpc_meta_pb2.RpcMeta, payload: bytes = b"") -> bytes:
    head = meta.SerializeToString()
    return b"PRPC" + struct.pack(">II", len(head) + len(payload), len(head)) + head + payload


def seek_meta(**fields: Any) -> baidu_rpc_meta_pb2.RpcMeta:
    request = baidu_rpc_meta_pb2.RpcRequestMeta(service_name="DictService", method_name="seek")
    return baidu_rpc_meta_pb2.RpcMeta(request=request, correlation_id=4, **fields)


@pytest.mark.parametrize(
    ("frame", "code", "text"),
    [
        (
            raw_frame(baidu_rpc_meta_pb2.RpcMeta(correlation_id=4)),
            1001,
            "Fail to find service=",
        ),
        (
            raw_frame(seek_meta(), b"\x08\xff"),
            1003,
            "[E1003]Fail to parse request message, CompressType=none, request_size=2",
        ),
        (
            raw_frame(seek_meta(attachment_size=3000), b"\x08\x01"),
            1003,
            "attachment_size=3000 is larger than request_size=2",
        ),
        (raw_frame(seek_meta(), b"\x08\x01" * 1001), 2004, "1000"),
        (
            raw_frame(seek_meta(), dict_pb2.DictRequest(version="9_9").SerializeToString()),
            2001,
            "9_9",
        ),
    ],
    ids=["no_request", "malformed", "attachment", "keys_per_request_max", "version"],
)
async def test_requests_that_cannot_be_taken_get_an_error_frame(
    seeker: Seeker, frame: bytes, code: int, text: str
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(frame)
    correlation_id, found_code, found_text = error_of(transport.written)
    assert (correlation_id, found_code) == (4, code)
    assert found_text.startswith(f"[127.0.0.1:8000][E{code}]")
    assert text in found_text
    transport.written = b""
    protocol.data_received(REQUEST)
    assert transport.written == RESPONSE


async def test_failures_of_handlers_are_answered(seeker: Seeker) -> None:
    commands = Commands()
    commands.released.set()
    protocol, transport = connect(seeker, commands=commands)
    protocol.data_received(encode_request_frame("ControlService", "cmd", 1, b"limit"))
    await answered(transport, 1)
    assert error_of(transport.written) == (1, 2004, "[127.0.0.1:8000][E2004]over some_limit=3")
    transport.written = b""
    protocol.data_received(encode_request_frame("ControlService", "cmd", 2, b"bug"))
    await answered(transport, 1)
    assert error_of(transport.written)[1] == 2001
    assert b"secret" not in transport.written


@pytest.mark.parametrize(
    "garbage",
    [
        b"PRPX" + REQUEST[4:],
        b"PRPC" + struct.pack(">II", 5, 6) + b"xxxxx",
        b"PRPC" + struct.pack(">II", (1 << 20) + 1, 6),
        b"PRPC" + struct.pack(">II", 3, 3) + b"\x0a\xff\xff",
    ],
    ids=["magic", "meta_over_body", "frame_bytes_max", "meta"],
)
async def test_peers_that_send_no_frames_are_cut_off(
    seeker: Seeker, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(REQUEST + garbage)
    assert transport.written == RESPONSE, "what came before is answered"
    assert transport.closed
    assert len(caplog.records) == 1
    assert "127.0.0.1:5000" in caplog.text


async def test_reads_no_more_than_the_peer_takes(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    protocol.pause_writing()
    assert not transport.reading
    protocol.resume_writing()
    assert transport.reading


async def test_reads_no_more_with_in_flight_max_requests_under_way(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    slow = encode_request_frame("ControlService", "cmd", 1, b"")
    for _ in range(LIMITS.in_flight_max):
        assert transport.reading
        protocol.data_received(slow)
    assert not transport.reading
    commands.released.set()
    await answered(transport, LIMITS.in_flight_max)
    await until(transport, lambda: transport.reading)


async def test_drain_answers_what_is_under_way(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    protocol.data_received(encode_request_frame("ControlService", "cmd", 1, b"x"))
    protocol.drain()
    protocol.data_received(REQUEST)
    assert (transport.written, transport.eof_written) == (b"", False)
    commands.released.set()
    await answered(transport, 1)
    await until(transport, lambda: transport.eof_written)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bytes_are_answered_or_cut_off(seeker: Seeker, data: st.DataObject) -> None:
    """Mutated frames, cut anywhere: the server answers with frames or closes, and never raises."""

    async def run() -> None:
        stream = bytearray(REQUEST * 2)
        for _ in range(data.draw(st.integers(0, 4))):
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
        stream += data.draw(st.binary(max_size=40))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
        protocol, transport = connect(seeker)
        for start, end in itertools.pairwise([0, *cuts, len(stream)]):
            protocol.data_received(bytes(stream[start:end]))
        frames, taken_bytes, _ = parse_frames(transport.written, 1 << 20)
        assert taken_bytes == len(transport.written)
        assert not any(frame.is_request for frame in frames)

    asyncio.run(run())


def test_services_name_every_method_once() -> None:
    descriptor = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
    with pytest.raises(ValueError, match="ControlService"):
        Service(descriptor, {})
    with pytest.raises(ValueError, match="nope"):
        Service(descriptor, {"nope": Commands().cmd})
