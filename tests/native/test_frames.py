from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_core._native import (
    Frame,
    encode_error_frame,
    encode_request_frame,
    encode_response_frame,
    parse_frames,
)
from cube_core.errors import WireError
from cube_proto import baidu_rpc_meta_pb2
from tests.native.fixtures import FRAME_BYTES_MAX, HEAD_BYTES, META_BYTES, REQUEST, RESPONSE

INT64 = st.integers(-(2**63), 2**63 - 1)


def parse_one(data: bytes) -> Frame:
    frames, taken, needed = parse_frames(data, FRAME_BYTES_MAX)
    assert (len(frames), taken, needed) == (1, len(data), HEAD_BYTES)
    return frames[0]


def meta_of(frame: bytes) -> baidu_rpc_meta_pb2.RpcMeta:
    meta_bytes = int.from_bytes(frame[8:12], "big")
    return baidu_rpc_meta_pb2.RpcMeta.FromString(frame[12 : 12 + meta_bytes])


def with_meta(meta: bytes, rest: bytes = b"") -> bytes:
    sizes = (len(meta) + len(rest)).to_bytes(4, "big") + len(meta).to_bytes(4, "big")
    return b"PRPC" + sizes + meta + rest


def test_request_of_the_original() -> None:
    frame = parse_one(REQUEST)
    assert (frame.service, frame.method) == ("rec.mcube.DictService", "seek")
    assert (frame.correlation_id, frame.is_request, frame.fault) == (6, True, "")
    assert bytes(frame.payload) == REQUEST[HEAD_BYTES + META_BYTES :]
    assert encode_request_frame("rec.mcube.DictService", "seek", 6, frame.payload) == REQUEST


def test_response_of_the_original() -> None:
    frame = parse_one(RESPONSE)
    assert (frame.correlation_id, frame.is_request, frame.error_code) == (6, False, 0)
    assert (frame.service, frame.error_text) == ("", "")
    assert encode_response_frame(6, frame.payload) == RESPONSE


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    INT64,
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.integers(0, 2**31 - 1),
    INT64,
)
def test_requests_agree_with_protobuf(
    service: str,
    method: str,
    correlation_id: int,
    payload: bytes,
    attachment: bytes,
    timeout_ms: int,
    log_id: int,
) -> None:
    data = encode_request_frame(
        service,
        method,
        correlation_id,
        payload,
        attachment=attachment,
        timeout_ms=timeout_ms,
        log_id=log_id,
    )
    meta = meta_of(data)
    assert (meta.request.service_name, meta.request.method_name) == (service, method)
    assert (meta.correlation_id, meta.attachment_size) == (correlation_id, len(attachment))
    assert (meta.request.timeout_ms, meta.request.log_id) == (timeout_ms, log_id)
    frame = parse_one(data)
    assert (frame.service, frame.method, frame.correlation_id) == (service, method, correlation_id)
    assert (frame.timeout_ms, frame.log_id) == (timeout_ms, log_id)
    assert (bytes(frame.payload), bytes(frame.attachment)) == (payload, attachment)


@given(INT64, st.integers(-(2**31), 2**31 - 1), st.text(max_size=80))
def test_errors_agree_with_protobuf(correlation_id: int, code: int, text: str) -> None:
    data = encode_error_frame(correlation_id, code, text)
    meta = meta_of(data)
    assert (meta.response.error_code, meta.response.error_text) == (code, text)
    assert meta.correlation_id == correlation_id
    frame = parse_one(data)
    assert (frame.error_code, frame.error_text) == (code, text)
    assert (frame.correlation_id, bytes(frame.payload)) == (correlation_id, b"")


@given(INT64, st.binary(max_size=100), st.binary(max_size=100))
def test_responses_agree_with_protobuf(
    correlation_id: int, payload: bytes, attachment: bytes
) -> None:
    data = encode_response_frame(correlation_id, payload, attachment=attachment)
    meta = meta_of(data)
    assert meta.HasField("response")
    assert (meta.correlation_id, meta.attachment_size) == (correlation_id, len(attachment))
    assert data.endswith(payload + attachment)


def test_pipelined_frames_in_any_pieces() -> None:
    second = encode_request_frame("DictService", "seek", 7, b"", attachment=b"{}")
    stream = REQUEST + second + REQUEST
    for cut in range(len(stream) + 1):
        frames, taken, needed = parse_frames(stream[:cut], FRAME_BYTES_MAX)
        whole = sum(cut >= end for end in (57, 57 + len(second), len(stream)))
        assert [frame.correlation_id for frame in frames] == [6, 7, 6][:whole]
        assert taken == (0, 57, 57 + len(second), len(stream))[whole]
        left = cut - taken
        assert needed == (HEAD_BYTES if left < HEAD_BYTES else (57, len(second), 57, 0)[whole])


def test_views_outlive_the_buffer() -> None:
    buffer = bytearray(REQUEST)
    frames, _, _ = parse_frames(memoryview(buffer), FRAME_BYTES_MAX)
    payload = frames[0].payload
    del frames
    assert bytes(payload) == REQUEST[HEAD_BYTES + META_BYTES :]
    with pytest.raises(BufferError):
        buffer.clear()


def test_meta_of_newer_brpc_is_tolerated() -> None:
    meta = REQUEST[HEAD_BYTES : HEAD_BYTES + META_BYTES] + bytes.fromhex("500058006200")
    frame = parse_one(with_meta(meta, b"\x08\x01"))
    assert (frame.service, bytes(frame.payload)) == ("rec.mcube.DictService", b"\x08\x01")


def test_correlation_id_defaults_to_zero_and_may_be_large() -> None:
    meta = baidu_rpc_meta_pb2.RpcMeta()
    meta.request.service_name = "s"
    meta.request.method_name = "m"
    assert parse_one(with_meta(meta.SerializeToString())).correlation_id == 0
    meta.correlation_id = 8589934598
    assert parse_one(with_meta(meta.SerializeToString())).correlation_id == 8589934598


def test_no_request_is_a_frame_without_service() -> None:
    frame = parse_one(with_meta(b"\x20\x05"))
    assert (frame.is_request, frame.service, frame.correlation_id) == (False, "", 5)


def test_an_attachment_larger_than_the_request_is_a_fault() -> None:
    meta = REQUEST[HEAD_BYTES : HEAD_BYTES + META_BYTES] + b"\x28\xb8\x17"
    frame = parse_one(with_meta(meta, b"\x08\x01"))
    assert frame.fault == "attachment_size=3000 is larger than request_size=2"
    assert (frame.correlation_id, frame.is_request) == (6, True)


def test_names_that_are_not_text_are_shown_escaped() -> None:
    frame = parse_one(with_meta(b"\x0a\x06\x0a\x01\xff\x12\x01m"))
    assert frame.service == "\\xff"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"PRPD", "begin with PRPC"),
        (b"G", "begin with PRPC"),
        (b"PRPC" + b"\0\0\0\1" + b"\0\0\0\2", "meta of 2 bytes is larger than its body of 1"),
        (b"PRPC" + b"\x04\0\0\1" + b"\0\0\0\0", "67108865 bytes is over frame_bytes_max 67108864"),
        (with_meta(b"\xff"), r"frame meta has a varint .* \(offset 12\)"),
        (with_meta(b"\x0a\x05\x0a\x01x"), "frame meta has a length that reaches over its end"),
        (with_meta(b"\x0a\x03\x0a\x01x"), "request lacks its service or method name"),
        (with_meta(b"\x00\x00"), "tag that is no field"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        parse_frames(data, FRAME_BYTES_MAX)
    frames, taken, needed = parse_frames(REQUEST + data, FRAME_BYTES_MAX)
    assert (len(frames), taken) == (1, len(REQUEST))
    assert needed <= len(data)


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_random_bytes_are_frames_or_a_wire_error(data: bytes) -> None:
    for prefix in (b"", b"PRPC", b"PRPC\0\0\0\x20\0\0\0\x10"):
        try:
            parse_frames(prefix + data, FRAME_BYTES_MAX)
        except WireError as error:
            assert "offset" in str(error)  # noqa: PT017


def test_only_bytes_are_parsed() -> None:
    for data in ("text", memoryview(REQUEST + b"\0\0\0").cast("I"), memoryview(REQUEST)[::2]):
        with pytest.raises(TypeError):
            parse_frames(data, FRAME_BYTES_MAX)  # type: ignore[arg-type]
