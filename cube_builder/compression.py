"""Hadoop's compression codecs, as far as SequenceFiles use them.

Zlib, gzip and bzip2 are Python's own; Snappy and Zstandard come with pyarrow and LZ4 with lz4,
which the extra `arrow` installs.
"""

from __future__ import annotations

import bz2
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from cube_builder.optional import require
from cube_core.errors import BuildError

Decompress = Callable[[bytes, int], bytes]
"""Compressed bytes and the most bytes that may come out; ValueError when they are malformed."""

_PACKAGE = "org.apache.hadoop.io.compress."


def codec_named(class_name: str) -> Decompress:
    """The decompressor of a codec's Java class.

    Raises:
        BuildError: a codec that is not read, or a library that is not installed.
    """
    make = _CODECS.get(class_name.removeprefix(_PACKAGE))
    if make is None:
        raise BuildError(
            f"compression codec {class_name!r} is not supported; supported are "
            f"{', '.join(_CODECS)} of {_PACKAGE[:-1]}"
        )
    return make()


class _Stream(Protocol):
    """What zlib's and bz2's decompressors have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def _streamed(make_stream: Callable[[], _Stream]) -> Decompress:
    """Reads one stream after the other, as gzip and bzip2 files may be put together."""

    def decompress(data: bytes, bytes_max: int) -> bytes:
        pieces: list[bytes] = []
        left = bytes_max
        while data:
            stream = make_stream()
            try:
                piece = stream.decompress(data, left + 1)
            except (zlib.error, OSError) as error:
                raise ValueError(str(error)) from error
            left -= len(piece)
            if left < 0:
                raise _too_large(bytes_max)
            if not stream.eof:
                raise ValueError("the compressed bytes are cut off")
            pieces.append(piece)
            data = stream.unused_data
        return b"".join(pieces)

    return decompress


def _framed(decompress_chunk: Callable[[bytes, int], bytes]) -> Decompress:
    """Undoes BlockCompressorStream: blocks of a u32be uncompressed length, then chunks of a u32be
    length and their bytes, until the block has its length."""

    def chunks(data: bytes, bytes_max: int) -> Iterator[bytes]:
        at, left = 0, bytes_max
        while at < len(data):
            block_left, at = _length(data, at)
            left -= block_left
            if left < 0:
                raise _too_large(bytes_max)
            while block_left > 0:
                size, at = _length(data, at)
                if size > len(data) - at:
                    raise ValueError("the compressed bytes are cut off")
                piece = decompress_chunk(data[at : at + size], block_left)
                at += size
                if not 0 < len(piece) <= block_left:
                    raise ValueError("a compressed chunk does not have the length that it says")
                block_left -= len(piece)
                yield piece

    return lambda data, bytes_max: b"".join(chunks(data, bytes_max))


def _length(data: bytes, at: int) -> tuple[int, int]:
    try:
        return struct.unpack_from(">I", data, at)[0], at + 4
    except struct.error:
        raise ValueError("the compressed bytes are cut off") from None


def _too_large(bytes_max: int) -> ValueError:
    return ValueError(f"it decompresses to more than {bytes_max} bytes")


def _snappy() -> Decompress:
    codec = require("pyarrow", "arrow", "SnappyCodec").Codec("snappy")

    def decompress_chunk(chunk: bytes, bytes_max: int) -> bytes:
        size = _snappy_size(chunk)
        if size > bytes_max:
            raise ValueError("a compressed chunk does not have the length that it says")
        try:
            return bytes(codec.decompress(chunk, size, asbytes=True))
        except OSError as error:
            raise ValueError(str(error)) from error

    return _framed(decompress_chunk)


def _snappy_size(chunk: bytes) -> int:
    """Uncompressed length, the varint that a raw Snappy chunk begins with."""
    size = 0
    for index, byte in enumerate(chunk[:5]):
        size |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return size
    raise ValueError("a Snappy chunk without a length")


def _lz4() -> Decompress:
    block = require("lz4.block", "arrow", "Lz4Codec")

    def decompress_chunk(chunk: bytes, bytes_max: int) -> bytes:
        try:
            return bytes(block.decompress(chunk, uncompressed_size=bytes_max))
        except block.LZ4BlockError as error:
            raise ValueError(str(error)) from error

    return _framed(decompress_chunk)


def _zstandard() -> Decompress:
    arrow = require("pyarrow", "arrow", "ZStandardCodec")

    def decompress(data: bytes, bytes_max: int) -> bytes:
        try:
            with arrow.CompressedInputStream(arrow.BufferReader(data), "zstd") as stream:
                result = bytes(stream.read(bytes_max + 1))
        except OSError as error:
            raise ValueError(str(error)) from error
        if len(result) > bytes_max:
            raise _too_large(bytes_max)
        return result

    return decompress


_CODECS: dict[str, Callable[[], Decompress]] = {
    "DefaultCodec": lambda: _streamed(zlib.decompressobj),
    "DeflateCodec": lambda: _streamed(zlib.decompressobj),
    "GzipCodec": lambda: _streamed(lambda: zlib.decompressobj(16 + zlib.MAX_WBITS)),
    "BZip2Codec": lambda: _streamed(bz2.BZ2Decompressor),
    "SnappyCodec": _snappy,
    "Lz4Codec": _lz4,
    "ZStandardCodec": _zstandard,
}
