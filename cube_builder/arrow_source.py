"""Parquet and Arrow IPC files as input of a build: columns `key` and `embedding`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import BATCH_BYTES, VALUE_BYTES_MAX, Batch
from cube_builder.changes import Changes
from cube_builder.optional import require
from cube_core.errors import BuildError

_COLUMNS = ["key", "embedding"]
# Rows taken at once while the width is not known yet.
_FIRST_ROWS = 1
# The same where rows without an embedding may come first.
_FIRST_CHANGES = 1024


class ArrowSource:
    """One file that pyarrow reads.

    `key` is of an integer type, negative ones count modulo 2^64; `embedding` is a list, large list
    or fixed-size list of float32, of the same length in every row. Nothing may be null, but the
    embeddings that a delta deletes.

    Args:
        kind: "parquet", "arrow" (IPC file) or "arrow stream" (IPC stream).
        deletions: take rows whose embedding is null, which delete their key.

    Raises:
        BuildError: pyarrow is not installed, or the file is malformed, lacks a column or has one
            of another type (file and column named).
    """

    def __init__(self, path: Path, kind: str, *, deletions: bool = False) -> None:
        self.path = path
        self._kind = kind
        self._deletions = deletions
        self._arrow = require("pyarrow", "arrow", f"{path}: reading {kind}")
        self.value_bytes = 0
        for _, values, _ in self._read(_FIRST_CHANGES if deletions else _FIRST_ROWS):
            self.value_bytes = values.shape[1]
            if self.value_bytes:
                break

    @property
    def input_bytes(self) -> int:
        return self.path.stat().st_size

    def batches(self) -> Iterator[tuple[Batch, int]]:
        for (keys, values, _), offset in self.changes():
            yield (keys, values), offset

    def changes(self) -> Iterator[tuple[Changes, int]]:
        rows_max = max(1, BATCH_BYTES // (self.value_bytes + 8))
        for keys, values, deleted in self._read(rows_max):
            if values.shape[1] not in (0, self.value_bytes):
                raise self._width_error(keys[0], values.shape[1])
            rows = values
            if deleted.any():
                rows = np.zeros((len(keys), self.value_bytes), np.uint8)
                if len(values):
                    rows[~deleted] = values
            # How much of the file a batch took is not told; only its end is sure.
            yield Changes(keys, rows, deleted), 0

    def _read(self, rows_max: int) -> Iterator[Changes]:
        """Non-empty batches of at most `rows_max` rows, with values of those that have one."""
        with self._named_errors(), contextlib.ExitStack() as stack:
            for batch in self._record_batches(stack, rows_max):
                for start in range(0, batch.num_rows, rows_max):
                    yield self._changes(batch.slice(start, rows_max))

    def _record_batches(self, stack: contextlib.ExitStack, rows_max: int) -> Iterator[Any]:
        if self._kind == "parquet":
            parquet = require("pyarrow.parquet", "arrow", str(self.path))
            file = stack.enter_context(parquet.ParquetFile(self.path))
            self._check_schema(file.schema_arrow)
            yield from file.iter_batches(batch_size=rows_max, columns=_COLUMNS)
            return
        ipc = require("pyarrow.ipc", "arrow", str(self.path))
        opened = stack.enter_context(self._arrow.OSFile(str(self.path)))
        if self._kind == "arrow":
            reader = ipc.open_file(opened)
            self._check_schema(reader.schema)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        else:
            reader = ipc.open_stream(opened)
            self._check_schema(reader.schema)
            batches = iter(reader)
        for batch in batches:
            # Offsets inside an IPC file are used as they stand, so they are checked before.
            batch.validate(full=True)
            yield batch

    def _check_schema(self, schema: Any) -> None:
        types = self._arrow.types
        for name in _COLUMNS:
            if schema.names.count(name) != 1:
                raise BuildError(
                    f"{self.path}: {schema.names.count(name)} columns named {name!r}, needed is "
                    f"one; the file has {', '.join(schema.names)}"
                )
        key, embedding = (schema.field(name).type for name in _COLUMNS)
        if not types.is_integer(key):
            raise BuildError(f"{self.path}: column 'key' is of type {key}, needed is an integer")
        is_list = (
            types.is_list(embedding)
            or types.is_large_list(embedding)
            or types.is_fixed_size_list(embedding)
        )
        if not is_list or not types.is_float32(embedding.value_type):
            raise BuildError(
                f"{self.path}: column 'embedding' is of type {embedding}, needed is a list of float"
            )

    def _changes(self, batch: Any) -> Changes:
        deleted = np.zeros(batch.num_rows, bool)
        if not (self._deletions and batch.column("embedding").null_count):
            return Changes(*self._pairs(batch), deleted)
        valid = batch.column("embedding").is_valid()
        deleted = ~valid.to_numpy(zero_copy_only=False)
        if batch.column("key").null_count:
            raise BuildError(f"{self.path}: column 'key' has a null; every row needs one")
        keys = _as_uint64(batch.column("key").to_numpy(zero_copy_only=False))
        values = np.empty((0, 0), np.uint8)
        if not deleted.all():
            _, values = self._pairs(batch.filter(valid))
        return Changes(keys, values, deleted)

    def _pairs(self, batch: Any) -> Batch:
        key_column, rows = (batch.column(name) for name in _COLUMNS)
        for name, column in (("key", key_column), ("embedding", rows)):
            if column.null_count:
                raise BuildError(
                    f"{self.path}: column {name!r} has a null; every row needs both"
                    " (but in the input of a delta, where a null embedding deletes its key)"
                )
        keys = _as_uint64(key_column.to_numpy(zero_copy_only=False))
        elements = rows.flatten()
        if elements.null_count:
            raise BuildError(f"{self.path}: a null inside an 'embedding'")
        dim = self._dim(rows, keys)
        if not 1 <= dim * 4 <= VALUE_BYTES_MAX:
            raise BuildError(
                f"{self.path}: key {keys[0]}: {dim} elements, supported are 1 to "
                f"{VALUE_BYTES_MAX // 4}"
            )
        floats = elements.to_numpy(zero_copy_only=False)
        return keys, floats.view(np.uint8).reshape(len(keys), dim * 4)

    def _dim(self, rows: Any, keys: NDArray[np.uint64]) -> int:
        if self._arrow.types.is_fixed_size_list(rows.type):
            return int(rows.type.list_size)
        lengths = np.diff(rows.offsets.to_numpy(zero_copy_only=False))
        if len(others := np.flatnonzero(lengths != lengths[0])):
            raise self._width_error(keys[others[0]], int(lengths[others[0]]) * 4, lengths[0] * 4)
        return int(lengths[0])

    def _width_error(self, key: np.uint64, found: int, first: int = 0) -> BuildError:
        return BuildError(
            f"{self.path}: key {key}: a value of {found} bytes; the file's first has "
            f"{self.value_bytes or first}"
        )

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        # A name that is no UTF-8 is a ValueError.
        except (self._arrow.ArrowException, ValueError) as error:
            raise BuildError(f"{self.path}: malformed {self._kind} file: {error}") from error
        except OSError as error:
            # pyarrow raises it for malformed content too, but then without a number.
            if error.errno is not None:
                raise
            raise BuildError(f"{self.path}: malformed {self._kind} file: {error}") from error


def _as_uint64(keys: NDArray[Any]) -> NDArray[np.uint64]:
    if np.issubdtype(keys.dtype, np.signedinteger):
        keys = keys.astype(np.int64, copy=False).view(np.uint64)
    return keys.astype(np.uint64, copy=False)
