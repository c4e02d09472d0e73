"""Criteo rows as features: 26 hashed sparse ids and 13 scaled dense values.

The rules are those of Paddle's CTR example, so that a table and a network trained by one side fit
the requests of the other: field positions count from 0 within the 39 feature columns, and the hash
is that of CPython 2's strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import FormatError

SLOTS = 26
DENSE_DIM = 13
HASH_ROWS = 1_000_001
FIELD_BYTES_MAX = 1024
"""A longer field is refused: it would become a matrix of its length times the rows of a batch."""

_COLUMNS = [f"I{i}" for i in range(1, DENSE_DIM + 1)] + [f"C{i}" for i in range(1, SLOTS + 1)]
_DENSE_MIN = np.array([0, -3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], np.float64)
_DENSE_RANGE = np.array([20, 603, 100, 50, 64000, 500, 100, 50, 500, 10, 10, 10, 50], np.float64)
_MULTIPLIER = 1_000_003
_MASK = 2**64 - 1


class CriteoRows(NamedTuple):
    """Features of n rows: sparse_ids int64[n, 26] in 0 … 1,000,000, dense float32[n, 13], and
    labels int64[n] of 0 and 1, or None when the file has none."""

    sparse_ids: NDArray[np.int64]
    dense: NDArray[np.float32]
    labels: NDArray[np.int64] | None


def read_rows(path: Path | str, rows_max: int | None = None) -> CriteoRows:
    """Reads a file of Criteo rows, or its first `rows_max`; see `read_batches`.

    Raises:
        FormatError: no rows, or a malformed one; names file and line.
        OSError: the file cannot be read.
    """
    batches = list(read_batches(path, rows_per_batch=50_000, rows_max=rows_max))
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return CriteoRows(
        np.concatenate([batch.sparse_ids for batch in batches]),
        np.concatenate([batch.dense for batch in batches]),
        np.concatenate(labels) if labels else None,
    )


def read_batches(
    path: Path | str, *, rows_per_batch: int, rows_max: int | None = None
) -> Iterator[CriteoRows]:
    """Reads Criteo rows in batches of at most `rows_per_batch`.

    The columns are `I1..I13,C1..C26`, before them optionally `Label`, before that optionally `Id`;
    separated by tabs or commas, with or without a header; an empty field is a missing value. Blank
    lines are skipped.

    Raises:
        FormatError: no rows, or a malformed one; names file and line.
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        layout = _Layout.detect(str(path), file)
        rows = (line for line in _numbered_lines(file) if line[0] > layout.header_lines)
        lines = islice(rows, rows_max)
        empty = True
        while batch := list(islice(lines, rows_per_batch)):
            empty = False
            yield _features(str(path), batch, layout)
    if empty:
        raise FormatError(f"{path}: has no rows")


def hash_fields(fields: Sequence[bytes], position: int) -> NDArray[np.int64]:
    """Sparse ids int64[n] of n fields that stand at `position` (0 to 38) of their rows."""
    lengths = np.fromiter(map(len, fields), np.int64, len(fields))
    width = int(lengths.max(initial=0))
    # The trailing NULs that numpy pads with never reach the hash: `lengths` masks them out.
    characters = np.array(fields, dtype=f"S{max(width, 1)}").view(np.uint8)
    characters = characters.reshape(len(fields), max(width, 1))
    prefix = str(position).encode()
    seed = prefix[0] << 7
    for byte in prefix:
        seed = ((_MULTIPLIER * seed) & _MASK) ^ byte
    hashed = np.full(len(fields), seed, np.uint64)
    for column in range(width):
        stepped = (hashed * np.uint64(_MULTIPLIER)) ^ characters[:, column]
        hashed = np.where(column < lengths, stepped, hashed)
    signed = (hashed ^ (lengths + len(prefix)).view(np.uint64)).view(np.int64)
    return np.where(signed == -1, -2, signed) % HASH_ROWS


def features_of_columns(
    values: Sequence[NDArray[np.float64]], categories: Sequence[Sequence[bytes]]
) -> CriteoRows:
    """Features of n rows, without labels.

    Args:
        values: float64[n] of each of I1 … I13, NaN where the row has none.
        categories: n fields of each of C1 … C26, empty where the row has none.
    """
    scaled = (np.stack(values, axis=1) - _DENSE_MIN) / _DENSE_RANGE
    dense = np.where(np.isnan(scaled), 0.0, scaled).astype(np.float32)
    sparse_ids = np.empty((len(dense), SLOTS), np.int64)
    for slot, fields in enumerate(categories):
        sparse_ids[:, slot] = hash_fields(fields, DENSE_DIM + slot)
    return CriteoRows(sparse_ids, dense, None)


class _Layout(NamedTuple):
    """How a file writes its rows."""

    separator: bytes
    columns: int
    features_start: int
    label_column: int | None
    header_lines: int

    @classmethod
    def detect(cls, path: str, file: BinaryIO) -> _Layout:
        """Decides by the first line that is not blank, and goes back to the start of the file."""
        number, first = next(_numbered_lines(file), (0, b""))
        file.seek(0)
        if not first:
            raise FormatError(f"{path}: has no rows")
        separator = b"\t" if b"\t" in first else b","
        fields = first.split(separator)
        names = [field.decode("latin-1") for field in fields]
        start = len(fields) - len(_COLUMNS)
        if names[0] in ("Id", "Label", "I1"):
            if names[start:] != _COLUMNS or start not in (0, 1, 2):
                raise FormatError(
                    f"{path}:{number}: the header must be [Id,][Label,]I1..I13,C1..C26"
                )
            label = names.index("Label") if "Label" in names[:start] else None
            return cls(separator, len(fields), start, label, header_lines=number)
        if start not in (0, 1, 2):
            raise FormatError(
                f"{path}:{number}: {len(fields)} fields; a row has 39 (I1..I13, C1..C26),"
                " before them optionally a label, before that optionally an id"
            )
        return cls(separator, len(fields), start, start - 1 if start else None, header_lines=0)


def _numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(file, start=1):
        line = raw.rstrip(b"\r\n")
        if line:
            yield number, line


def _features(path: str, lines: list[tuple[int, bytes]], layout: _Layout) -> CriteoRows:
    rows = [_fields(path, number, line, layout) for number, line in lines]
    columns = list(zip(*rows, strict=True))
    numbers = [number for number, _ in lines]
    features = columns[layout.features_start :]
    values = [
        _floats(path, numbers, features[index], _COLUMNS[index]) for index in range(DENSE_DIM)
    ]
    made = features_of_columns(values, features[DENSE_DIM:])
    labels = None
    if layout.label_column is not None:
        labels = _labels(path, numbers, columns[layout.label_column])
    return made._replace(labels=labels)


def _fields(path: str, number: int, line: bytes, layout: _Layout) -> list[bytes]:
    fields = line.split(layout.separator)
    if len(fields) != layout.columns:
        raise FormatError(
            f"{path}:{number}: {len(fields)} fields where the first line has {layout.columns}"
        )
    if len(line) > FIELD_BYTES_MAX and max(map(len, fields)) > FIELD_BYTES_MAX:
        raise FormatError(f"{path}:{number}: a field is longer than {FIELD_BYTES_MAX} bytes")
    return fields


def _floats(
    path: str, numbers: Sequence[int], fields: Sequence[bytes], column: str
) -> NDArray[np.float64]:
    """Values float64[n], NaN where a field is empty."""
    values = np.empty(len(fields), np.float64)
    for index, field in enumerate(fields):
        try:
            values[index] = float(field or b"0")
        except ValueError:
            values[index] = np.nan
    wrong = np.flatnonzero(~np.isfinite(values))
    if wrong.size:
        first = int(wrong[0])
        raise FormatError(
            f"{path}:{numbers[first]}: {column} is {_shown(fields[first])}, no number"
        )
    values[[not field for field in fields]] = np.nan
    return values


def _labels(path: str, numbers: Sequence[int], fields: Sequence[bytes]) -> NDArray[np.int64]:
    for number, field in zip(numbers, fields, strict=True):
        if field not in (b"0", b"1"):
            raise FormatError(f"{path}:{number}: Label is {_shown(field)}, neither 0 nor 1")
    return np.fromiter(map(int, fields), np.int64, len(fields))


def _shown(field: bytes) -> str:
    return repr(field[:40].decode("utf-8", "replace"))
