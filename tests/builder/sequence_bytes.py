"""SequenceFiles put together byte by byte, apart from the code under test."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence

BYTES_WRITABLE = "org.apache.hadoop.io.BytesWritable"
LONG_WRITABLE = "org.apache.hadoop.io.LongWritable"
SYNC = bytes(range(16))
SYNC_ESCAPE = b"\xff\xff\xff\xff" + SYNC

Pair = tuple[int, bytes]


def text(content: str) -> bytes:
    """A vint of one byte and the text; long texts take the two-byte form of Hadoop's vints."""
    raw = content.encode()
    length = struct.pack("b", len(raw)) if len(raw) < 128 else struct.pack("bB", -113, len(raw))
    return length + raw


def header(
    key_class: str = BYTES_WRITABLE,
    value_class: str = BYTES_WRITABLE,
    *,
    version: int = 6,
    compressed: bool = False,
    block_compressed: bool = False,
    codec: str = "",
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    pairs = metadata or {}
    return b"".join(
        (
            b"SEQ",
            bytes([version]),
            text(key_class),
            text(value_class),
            bytes([compressed, block_compressed]),
            text(codec) if codec else b"",
            struct.pack(">I", len(pairs)),
            *(text(key) + text(value) for key, value in pairs.items()),
            SYNC,
        )
    )


def record(key: bytes, value: bytes) -> bytes:
    return struct.pack(">II", len(key) + len(value), len(key)) + key + value


def paddle_record(key: int, value: bytes) -> bytes:
    return record(struct.pack("<Q", key), value)


def hadoop_record(key: int, value: bytes) -> bytes:
    return record(
        struct.pack(">I", 8) + struct.pack("<Q", key), struct.pack(">I", len(value)) + value
    )


def long_record(key: int, value: bytes) -> bytes:
    return record(struct.pack(">Q", key), struct.pack(">I", len(value)) + value)


def paddle_file(pairs: Iterable[Pair]) -> bytes:
    return header() + b"".join(paddle_record(*pair) for pair in pairs)


def hadoop_file(pairs: Iterable[Pair]) -> bytes:
    return header() + b"".join(hadoop_record(*pair) for pair in pairs)


def long_file(pairs: Iterable[Pair]) -> bytes:
    return header(LONG_WRITABLE) + b"".join(long_record(*pair) for pair in pairs)


def vint(value: int) -> bytes:
    """Hadoop's variable-length integer of a number from 0 to 2^32 - 1."""
    if value < 128:
        return bytes([value])
    content = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([256 - 112 - len(content)]) + content


def compressed_file(
    pairs: Iterable[Pair],
    codec: str,
    compress: Callable[[bytes], bytes],
    records_per_block: int = 0,
) -> bytes:
    """A record-compressed file, or a block-compressed one, of LongWritable to BytesWritable."""
    fields = [
        (struct.pack(">Q", key), struct.pack(">I", len(value)) + value) for key, value in pairs
    ]
    start = header(
        LONG_WRITABLE, compressed=True, block_compressed=records_per_block > 0, codec=codec
    )
    if records_per_block == 0:
        return start + b"".join(record(key, compress(value)) for key, value in fields)
    blocks = [
        block(fields[at : at + records_per_block], compress)
        for at in range(0, len(fields), records_per_block)
    ]
    return start + b"".join(blocks)


def block(fields: Sequence[tuple[bytes, bytes]], compress: Callable[[bytes], bytes]) -> bytes:
    parts = b""
    for column in zip(*fields, strict=True):
        for content in (b"".join(vint(len(field)) for field in column), b"".join(column)):
            packed = compress(content)
            parts += vint(len(packed)) + packed
    return SYNC_ESCAPE + vint(len(fields)) + parts
