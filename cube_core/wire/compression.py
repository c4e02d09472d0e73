"""Compressed payloads of baidu_std requests, by brpc's numbers."""

from __future__ import annotations

import asyncio
import zlib

from cube_core._native import snappy_decompress
from cube_core.errors import FormatError, LimitError, WireError

NONE, SNAPPY, GZIP, ZLIB = range(4)
NAMES = {NONE: "none", SNAPPY: "snappy", GZIP: "gzip", ZLIB: "zlib"}

_WINDOW_BITS = {GZIP: 31, ZLIB: 15}
# Expanding so much takes well under a millisecond.
_LOOP_SOURCE_BYTES_MAX = 4 << 10
_LOOP_BYTES_MAX = 64 << 10


def expand(payload: memoryview | bytes, compress_type: int, bytes_max: int) -> bytes:
    """The payload as it was before it was compressed.

    Raises:
        FormatError: an unknown type, or bytes that are not of it; in brpc's words.
        LimitError: more than `bytes_max` bytes come out.
    """
    try:
        if compress_type == SNAPPY:
            return snappy_decompress(payload, bytes_max)
        if compress_type in _WINDOW_BITS:
            return _inflate(payload, _WINDOW_BITS[compress_type], bytes_max)
        known = ", ".join(f"{number} ({name})" for number, name in NAMES.items())
        problem = f"compress_type {compress_type} is none of {known}"
    except (WireError, zlib.error) as error:
        problem = str(error)
    name = NAMES.get(compress_type, "unknown")
    raise FormatError(
        f"Fail to parse request message, CompressType={name}, request_size={len(payload)}:"
        f" {problem}"
    )


async def expand_off_loop(payload: memoryview | bytes, compress_type: int, bytes_max: int) -> bytes:
    """As `expand`; what takes long is expanded in a thread."""
    if len(payload) <= _LOOP_SOURCE_BYTES_MAX:
        try:
            return expand(payload, compress_type, min(bytes_max, _LOOP_BYTES_MAX))
        except LimitError:
            if bytes_max <= _LOOP_BYTES_MAX:
                raise
    return await asyncio.to_thread(expand, payload, compress_type, bytes_max)


def _inflate(payload: memoryview | bytes, window_bits: int, bytes_max: int) -> bytes:
    stream = zlib.decompressobj(window_bits)
    # One byte over the limit tells more from enough.
    data = stream.decompress(payload, bytes_max + 1)
    if len(data) > bytes_max:
        raise LimitError(f"the payload expands to over frame_bytes_max={bytes_max}")
    if not stream.eof:
        raise WireError("the compressed data is cut off")
    return data
