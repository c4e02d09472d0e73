"""Requests with compressed payloads, as brpc's clients send them."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core._native import Seeker, snappy_decompress
from cube_core.errors import FormatError, LimitError, WireError
from cube_core.wire import compression
from cube_proto import baidu_rpc_meta_pb2, dict_pb2
from tests.server.mock_connection import LIMITS, answered, connect, error_of
from tests.server.test_protocol import raw_frame, seek_meta

KEYS = [1, 2, 999_999_999]
FRAME_BYTES_MAX = LIMITS.frame_bytes_max


def snappy_literals(data: bytes) -> bytes:
    """Raw Snappy without copies, in literals of up to 60 bytes."""
    size, head = len(data), bytearray()
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    for start in range(0, len(data), 60):
        piece = data[start : start + 60]
        head += bytes([(len(piece) - 1) << 2]) + piece
    return bytes(head)


COMPRESS: dict[int, Callable[[bytes], bytes]] = {
    compression.SNAPPY: snappy_literals,
    compression.GZIP: gzip.compress,
    compression.ZLIB: zlib.compress,
}


def compressed_seek(compress_type: int, keys: list[int]) -> bytes:
    payload = dict_pb2.DictRequest(keys=keys).SerializeToString()
    return raw_frame(seek_meta(compress_type=compress_type), COMPRESS[compress_type](payload))


@pytest.mark.parametrize("compress_type", list(COMPRESS))
@pytest.mark.parametrize("count", [1, 300])
async def test_a_compressed_seek_is_answered_plain(
    seeker: Seeker, compress_type: int, count: int
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(compressed_seek(compress_type, KEYS * count))
    (frame,) = await answered(transport, 1)
    assert (frame.error_code, frame.compress_type) == (0, 0)
    response = dict_pb2.DictResponse.FromString(bytes(frame.payload))
    assert [value.status for value in response.values] == [0, 0, 4294967295] * count


@pytest.mark.parametrize("compress_type", [*COMPRESS, 4, 77])
async def test_what_cannot_be_expanded_is_refused_and_the_connection_goes_on(
    seeker: Seeker, compress_type: int
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(raw_frame(seek_meta(compress_type=compress_type), b"\x7fnope"))
    await answered(transport, 1)
    name = compression.NAMES.get(compress_type, "unknown")
    _, code, text = error_of(transport.written)
    assert code == 1003
    assert f"Fail to parse request message, CompressType={name}, request_size=5" in text
    transport.written = b""
    protocol.data_received(compressed_seek(compression.ZLIB, KEYS))
    (frame,) = await answered(transport, 1)
    assert frame.error_code == 0


@pytest.mark.parametrize("compress_type", list(COMPRESS))
async def test_what_expands_to_over_the_limit_is_refused(
    seeker: Seeker, compress_type: int
) -> None:
    bomb = COMPRESS[compress_type](bytes(FRAME_BYTES_MAX + 1))
    if compress_type == compression.SNAPPY:
        bomb = bomb[:20_000]  # its length alone says enough
    protocol, transport = connect(seeker)
    protocol.data_received(raw_frame(seek_meta(compress_type=compress_type), bomb))
    await answered(transport, 1)
    _, code, text = error_of(transport.written)
    assert code == 2004
    assert "frame_bytes_max" in text


async def test_an_attachment_on_a_seek_is_passed_over(seeker: Seeker) -> None:
    payload = dict_pb2.DictRequest(keys=KEYS).SerializeToString()
    meta = seek_meta(attachment_size=5)
    assert isinstance(meta, baidu_rpc_meta_pb2.RpcMeta)
    protocol, transport = connect(seeker)
    protocol.data_received(raw_frame(meta, payload + b"extra"))
    (frame,) = await answered(transport, 1)
    response = dict_pb2.DictResponse.FromString(bytes(frame.payload))
    assert (len(response.values), bytes(frame.attachment)) == (3, b"")


@given(st.binary(max_size=5000), st.sampled_from(list(COMPRESS)))
def test_what_was_compressed_comes_back(data: bytes, compress_type: int) -> None:
    assert compression.expand(COMPRESS[compress_type](data), compress_type, 5000) == data


@given(st.binary(min_size=1, max_size=5000), st.sampled_from(list(COMPRESS)))
def test_one_byte_over_the_limit_is_too_much(data: bytes, compress_type: int) -> None:
    with pytest.raises(LimitError):
        compression.expand(COMPRESS[compress_type](data), compress_type, len(data) - 1)


@given(st.binary(max_size=300), st.sampled_from(list(COMPRESS)), st.data())
def test_damaged_data_is_expanded_or_refused(
    data: bytes, compress_type: int, draw: st.DataObject
) -> None:
    damaged = bytearray(COMPRESS[compress_type](data))
    at = draw.draw(st.integers(0, len(damaged) - 1))
    damaged[at] ^= draw.draw(st.integers(1, 255))
    del damaged[draw.draw(st.integers(0, len(damaged))) :]
    with contextlib.suppress(FormatError, LimitError):
        assert len(compression.expand(bytes(damaged), compress_type, 1 << 16)) <= 1 << 16


@given(st.lists(st.sampled_from([b"ab", b"embedding", bytes(70)]), max_size=400))
def test_reads_what_googles_snappy_writes(pieces: list[bytes]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    data = b"".join(pieces)
    compressed = pyarrow.compress(data, codec="snappy", asbytes=True)
    assert snappy_decompress(compressed, len(data)) == data


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "length"),
        (b"\xff\xff\xff\xff\xff", "length"),
        (b"\x02\x00a", "ends before"),
        (b"\x01\x04ab", "longer"),
        (b"\x05\x10abc", "cut off inside a literal"),
        (b"\x05\x00a\x01\x00", "before its beginning"),
        (b"\x05\x00a\x01\x02", "before its beginning"),
        (b"\x05\x00a\x02\x02", "cut off"),
        (b"\x05\xfcab", "cut off"),
    ],
)
def test_malformed_snappy_is_named(data: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        snappy_decompress(data, 100)
