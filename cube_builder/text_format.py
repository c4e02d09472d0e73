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

from cube_core._native import SequenceFileWriter
from cube_core.errors import BuildError

_KEY = re.compile(r"[0-9]{1,20}")
_KEY_MAX = 2**64 - 1
_LINES_PER_BATCH = 65_536
_DIM_MAX = 65_535 // 4


def text_to_sequence_file(source: Path, target: Path, *, dialect: str = "hadoop") -> int:
    """Writes the pairs of a text file as one SequenceFile; blank lines are skipped. A key without
    values is deleted, in the input of a delta.

    Returns:
        the number of pairs.

    Raises:
        BuildError: a line that is no pair, another number of values than in the first line with
            any (names file:line), or no pair at all.
        OSError: a file cannot be read or written.
    """
    if not source.is_file():
        raise BuildError(f"{source}: no such file")
    count = 0
    with (
        source.open(encoding="utf-8", errors="replace") as file,
        SequenceFileWriter(str(target), dialect=dialect) as writer,
    ):
        pairs = _parse_lines(source, file)
        while batch := list(islice(pairs, _LINES_PER_BATCH)):
            keys = np.array([key for key, _ in batch], dtype=np.uint64)
            values = np.array([value for _, row in batch for value in row], dtype="<f4")
            offsets = np.cumsum([0, *(4 * len(row) for _, row in batch)], dtype=np.int64)
            writer.append_bytes(keys, offsets, values.view(np.uint8))
            count += len(batch)
        if count == 0:
            raise BuildError(f"{source}: no pairs")
    return count


def format_pairs(keys: NDArray[np.uint64], values: NDArray[np.uint8]) -> Iterator[str]:
    """One line a pair of uint64[n] keys and uint8[n, width] values: float32 elements in their
    shortest exact form, or hexadecimal when the width is no multiple of 4."""
    if values.shape[1] % 4:
        for key, value in zip(keys.tolist(), values, strict=True):
            yield f"{key}:0x{value.tobytes().hex()}"
        return
    for key, row in zip(keys.tolist(), values.view("<f4"), strict=True):
        yield f"{key}:{' '.join(map(str, row))}"


def _parse_lines(source: Path, lines: TextIO) -> Iterator[tuple[int, list[float]]]:
    dim = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            key, row = _parse_pair(line)
            if dim and row and len(row) != dim:
                raise ValueError(f"{len(row)} values, the first line has {dim}")
        except ValueError as error:
            raise BuildError(f"{source}:{number}: {error}; write key:v1 v2 …") from error
        dim = dim or len(row)
        yield key, row


def _parse_pair(line: str) -> tuple[int, list[float]]:
    key_text, colon, values_text = line.strip().partition(":")
    if not colon:
        raise ValueError("no ':' between key and values")
    if not _KEY.fullmatch(key_text) or int(key_text) > _KEY_MAX:
        raise ValueError(f"{key_text[:40]!r} is no key from 0 to {_KEY_MAX}")
    row = [_parse_value(text) for text in values_text.split()]
    if len(row) > _DIM_MAX:
        raise ValueError(f"{len(row)} values, supported are up to {_DIM_MAX}")
    return int(key_text), row


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
