"""Compressed SequenceFiles put together byte by byte: what is read, and what damage does."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.block
import pyarrow
import pytest

from cube_builder.compression import codec_named
from cube_builder.sources import open_source
from cube_core._native import SequenceFileReader
from cube_core.errors import BuildError, SequenceFileError
from tests.builder import sequence_bytes as raw
from tests.builder.sequence_bytes import Pair

PACKAGE = "org.apache.hadoop.io.compress."
PAIRS: list[Pair] = [(key, struct.pack("<2I", key % 256, 7)) for key in (3, 2**64 - 1, 9, 4, 5)]

Compress = Callable[[bytes], bytes]


def framed(compress: Compress, chunk_bytes: int = 1 << 18) -> Compress:
    def whole(content: bytes) -> bytes:
        starts = range(0, len(content), chunk_bytes)
        chunks = [compress(content[at : at + chunk_bytes]) for at in starts]
        return struct.pack(">I", len(content)) + b"".join(
            struct.pack(">I", len(chunk)) + chunk for chunk in chunks
        )

    return whole


def snappy(content: bytes) -> bytes:
    return bytes(pyarrow.Codec("snappy").compress(content, asbytes=True))


def lz4_block(content: bytes) -> bytes:
    return bytes(lz4.block.compress(content, store_size=False))


CODECS: dict[str, Compress] = {
    "DefaultCodec": zlib.compress,
    "DeflateCodec": zlib.compress,
    "GzipCodec": gzip.compress,
    "BZip2Codec": bz2.compress,
    "SnappyCodec": framed(snappy),
    "Lz4Codec": framed(lz4_block),
    "ZStandardCodec": lambda content: bytes(pyarrow.Codec("zstd").compress(content, asbytes=True)),
}


def read_all(path: Path) -> list[Pair]:
    pairs: list[Pair] = []
    for (keys, values), offset in open_source(path).batches():
        assert offset <= path.stat().st_size
        pairs += zip(keys.tolist(), (value.tobytes() for value in values), strict=True)
    return pairs


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("records_per_block", [0, 1, 2, 5])
def test_reads_every_codec(tmp_path: Path, codec: str, records_per_block: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw.compressed_file(PAIRS, PACKAGE + codec, CODECS[codec], records_per_block))
    assert read_all(path) == PAIRS
    reader = SequenceFileReader(str(path), codec_named)
    assert (reader.codec, reader.value_bytes) == (PACKAGE + codec, 8)


@pytest.mark.parametrize("compress", [snappy, lz4_block])
def test_chunks_of_one_frame_are_joined(compress: Compress) -> None:
    content = bytes(range(256)) * 40
    codec = codec_named(PACKAGE + ("SnappyCodec" if compress is snappy else "Lz4Codec"))
    packed = framed(compress, 1000)(content)
    assert codec(packed + packed, 1 << 20) == content * 2
    assert codec(b"", 10) == b""


def test_streams_that_follow_each_other_are_joined() -> None:
    codec = codec_named(PACKAGE + "GzipCodec")
    assert codec(gzip.compress(b"a" * 9) + gzip.compress(b"b"), 10) == b"a" * 9 + b"b"


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_decompresses_to_more_than_its_bound(codec: str) -> None:
    content = b"\x00" * 100_000
    packed = CODECS[codec](content)
    assert codec_named(PACKAGE + codec)(packed, len(content)) == content
    with pytest.raises(ValueError, match=f"more than {len(content) - 1} bytes"):
        codec_named(PACKAGE + codec)(packed, len(content) - 1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("records_per_block", [0, 3])
def test_a_file_cut_off_is_refused_unless_it_ends_between_records(
    tmp_path: Path, codec: str, records_per_block: int
) -> None:
    path = tmp_path / "file"
    compress = CODECS[codec]
    whole = raw.compressed_file(PAIRS, PACKAGE + codec, compress, records_per_block)
    step = records_per_block or 1
    ends = {
        len(raw.compressed_file(PAIRS[:count], PACKAGE + codec, compress, records_per_block)): count
        for count in range(0, len(PAIRS) + 1, step)
    }
    for size in range(min(ends), len(whole)):
        path.write_bytes(whole[:size])
        # A sync marker with nothing after it is what a writer leaves that is closed early.
        count = ends.get(size, ends.get(size - len(raw.SYNC_ESCAPE)) if records_per_block else None)
        if count is None:
            with pytest.raises(SequenceFileError, match=r"file: .*\(offset \d+\)"):
                read_all(path)
        else:
            assert read_all(path) == PAIRS[:count]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("records_per_block", [0, 3])
def test_flipped_bytes_never_crash(tmp_path: Path, codec: str, records_per_block: int) -> None:
    path = tmp_path / "file"
    whole = raw.compressed_file(PAIRS, PACKAGE + codec, CODECS[codec], records_per_block)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x81
        path.write_bytes(damaged)
        with contextlib.suppress(SequenceFileError, BuildError):
            read_all(path)


FIELDS = [(struct.pack(">Q", key), struct.pack(">I", 4) + b"wxyz") for key in (1, 2)]


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        (raw.block(FIELDS, zlib.compress)[20:], "no sync marker before a block"),
        (raw.SYNC_ESCAPE + raw.vint(0) + raw.block(FIELDS, zlib.compress)[21:], "a block of 0 "),
        (raw.SYNC_ESCAPE + raw.vint(9) + raw.block(FIELDS, zlib.compress)[21:], "a block of 9 "),
        (
            raw.SYNC_ESCAPE + raw.vint(1) + raw.block(FIELDS, zlib.compress)[21:],
            "a block has more bytes than its records take",
        ),
        (raw.block(FIELDS, lambda content: content), "incorrect header check"),
        (raw.block([(b"12345678", b"")], zlib.compress), "does not agree with the record's"),
    ],
)
def test_refuses_blocks(tmp_path: Path, block: bytes, problem: str) -> None:
    path = tmp_path / "file"
    start = raw.header(
        raw.LONG_WRITABLE, compressed=True, block_compressed=True, codec=PACKAGE + "DefaultCodec"
    )
    path.write_bytes(start + block)
    with pytest.raises(SequenceFileError, match=problem):
        read_all(path)


def test_codecs_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw.compressed_file(PAIRS, "com.example.LzoCodec", zlib.compress))
    with pytest.raises(BuildError, match=r"file: compression codec 'com\.example\.LzoCodec' is"):
        open_source(path)


@pytest.mark.parametrize(
    ("codec", "module"),
    [("SnappyCodec", "pyarrow"), ("Lz4Codec", "lz4"), ("ZStandardCodec", "pyarrow")],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, codec: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw.compressed_file(PAIRS, PACKAGE + codec, CODECS[codec]))
    for name in (module, "lz4.block"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BuildError, match=rf"{codec} needs {module}: pip install .*\[arrow\]"):
        open_source(path)
