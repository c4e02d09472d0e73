"""`key:v1 v2 …` lines, the text form of key-embedding pairs."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ONE_WIDTH, VALUE_BYTES_MAX, ByteValues, Values, ValueWidth
from cube_core._native import SequenceFileWriter
from cube_core.errors import BuildError

_KEY = re.compile(r"[0-9]{1,20}")
_KEY_MAX = 2**64 - 1
_LINES_PER_BATCH = 65_536
_DIM_MAX = VALUE_BYTES_MAX // 4


def text_to_sequence_file(
    source: Path, target: Path, *, dialect: str = "hadoop", value_width: ValueWidth = "fixed"
) -> int:
    """Writes the pairs of a text file as one SequenceFile; blank lines are skipped. A key without
    values is deleted, in the input of a delta.

    Args:
        value_width: "fixed" refuses values of another width than the first.

    Returns:
        the number of pairs.

    Raises:
        BuildError: a line that is no pair, or of another width than the first with a value (names
            file:line), or no pair at all.
        OSError: a file cannot be read or written.
    """
    if not source.is_file():
        raise BuildError(f"{source}: no such file")
    count = 0
    with (
        source.open(encoding="utf-8", errors="replace") as file,
        SequenceFileWriter(str(target), dialect=dialect) as writer,
    ):
        pairs = _parse_lines(source, file, value_width)
        while batch := list(islice(pairs, _LINES_PER_BATCH)):
            keys = np.array([key for key, _ in batch], dtype=np.uint64)
            widths = np.array([len(value) for _, value in batch], dtype=np.int64)
            values = np.frombuffer(b"".join(value for _, value in batch), np.uint8)
            writer.append_bytes(keys, ByteValues.of_widths(widths, values).offsets, values)
            count += len(batch)
        if count == 0:
            raise BuildError(f"{source}: no pairs")
    return count


def format_pairs(
    keys: NDArray[np.uint64], values: Values, *, as_hex: bool = False
) -> Iterator[str]:
    """One line a pair of uint64[n] keys and n values: float32 elements in their shortest exact
    form, or hexadecimal when the width is no multiple of 4 or `as_hex` asks for it; nothing
    when the value is empty."""
    if isinstance(values, ByteValues):
        for i, key in enumerate(keys):
            value = np.frombuffer(values.value(i), np.uint8)
            yield from format_pairs(key[None], value[None], as_hex=as_hex)
        return
    if values.shape[1] == 0:
        yield from (f"{key}:" for key in keys.tolist())
        return
    if as_hex or values.shape[1] % 4:
        for key, value in zip(keys.tolist(), values, strict=True):
            yield f"{key}:0x{value.tobytes().hex()}"
        return
    for key, row in zip(keys.tolist(), values.view("<f4"), strict=True):
        yield f"{key}:{' '.join(map(str, row))}"


def _parse_lines(
    source: Path, lines: TextIO, value_width: ValueWidth
) -> Iterator[tuple[int, bytes]]:
    width = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            key, value = _parse_pair(line)
            if width and value and len(value) != width and value_width == "fixed":
                raise ValueError(
                    f"{_size(len(value))}, the first line has {_size(width)}; {ONE_WIDTH}"
                )
        except ValueError as error:
            raise BuildError(f"{source}:{number}: {error}; write key:v1 v2 …") from error
        width = width or len(value)
        yield key, value


def _size(width: int) -> str:
    return f"{width} bytes" if width % 4 else f"{width // 4} values"


def _parse_pair(line: str) -> tuple[int, bytes]:
    key_text, colon, values_text = line.strip().partition(":")
    if not colon:
        raise ValueError("no ':' between key and values")
    if not _KEY.fullmatch(key_text) or int(key_text) > _KEY_MAX:
        raise ValueError(f"{key_text[:40]!r} is no key from 0 to {_KEY_MAX}")
    words = values_text.split()
    if len(words) == 1 and words[0].startswith("0x"):
        return int(key_text), _parse_hex(words[0])
    row = [_parse_value(text) for text in words]
    if len(row) > _DIM_MAX:
        raise ValueError(f"{len(row)} values, supported are up to {_DIM_MAX}")
    return int(key_text), struct.pack(f"<{len(row)}f", *row)


def _parse_hex(word: str) -> bytes:
    try:
        value = bytes.fromhex(word.removeprefix("0x"))
    except ValueError:
        raise ValueError(f"{word[:40]!r} is not hexadecimal") from None
    if not 1 <= len(value) <= VALUE_BYTES_MAX:
        raise ValueError(f"a value of {len(value)} bytes, supported are 1 to {VALUE_BYTES_MAX}")
    return value


def _parse_value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no number") from None
    try:
        struct.pack("<f", value)
    except OverflowError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]!r} is no finite float32")
    return value
