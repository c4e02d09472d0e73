"""Parquet and Arrow IPC files as input of a build: columns `key` and `embedding`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import (
    BATCH_BYTES,
    ONE_WIDTH,
    VALUE_BYTES_MAX,
    Batch,
    BytesBatch,
    ByteValues,
)
from cube_builder.optional import require
from cube_core.errors import BuildError

_COLUMNS = ["key", "embedding"]
# Rows taken at once while the width is not known yet.
_FIRST_ROWS = 1
# The same where rows without an embedding may come first.
_FIRST_CHANGES = 1024
# Rows taken at once of variable width: as many as the widest make some 100 MB.
_VARIABLE_ROWS = 2048


class ArrowSource:
    """One file that pyarrow reads.

    `key` is of an integer type, negative ones count modulo 2^64; `embedding` is a list, large list
    or fixed-size list of float32, or binary of any kind. Nothing may be null, but the embeddings
    that a delta deletes.

    Args:
        kind: "parquet", "arrow" (IPC file) or "arrow stream" (IPC stream).
        deletions: `byte_batches` takes rows whose embedding is null, which delete their key.

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
        for (_, values), _ in self._read(_FIRST_CHANGES if deletions else _FIRST_ROWS):
            widths = values.widths
            if widths.any():
                self.value_bytes = int(widths[widths > 0][0])
                break

    @property
    def input_bytes(self) -> int:
        return self.path.stat().st_size

    def batches(self) -> Iterator[tuple[Batch, int]]:
        rows_max = max(1, BATCH_BYTES // (self.value_bytes + 8))
        for (keys, values), offset in self._read(rows_max):
            widths = values.widths
            if len(others := np.flatnonzero(widths != self.value_bytes)):
                raise BuildError(
                    f"{self.path}: key {keys[others[0]]}: a value of {widths[others[0]]} bytes; "
                    f"the file's first has {self.value_bytes}; {ONE_WIDTH}"
                )
            yield (keys, values.values.reshape(len(keys), self.value_bytes)), offset

    def byte_batches(self) -> Iterator[tuple[BytesBatch, int]]:
        yield from self._read(_VARIABLE_ROWS)

    def _read(self, rows_max: int) -> Iterator[tuple[BytesBatch, int]]:
        """Non-empty batches of at most `rows_max` pairs, and the bytes of the file up to their end,
        by their share of the rows."""
        begin = 0
        with self._named_errors(), contextlib.ExitStack() as stack:
            for batch, end in self._record_batches(stack, rows_max):
                for start in range(0, batch.num_rows, rows_max):
                    rows = batch.slice(start, rows_max)
                    bytes_read = (end - begin) * (start + rows.num_rows) // batch.num_rows
                    yield self._changes(rows), begin + bytes_read
                begin = end

    def _record_batches(
        self, stack: contextlib.ExitStack, rows_max: int
    ) -> Iterator[tuple[Any, int]]:
        """Batches, and about how many bytes of the file they take with those before them."""
        if self._kind == "parquet":
            parquet = require("pyarrow.parquet", "arrow", str(self.path))
            file = stack.enter_context(parquet.ParquetFile(self.path))
            self._check_schema(file.schema_arrow)
            rows = 0
            for batch in file.iter_batches(batch_size=rows_max, columns=_COLUMNS):
                rows += batch.num_rows
                yield batch, self.input_bytes * rows // file.metadata.num_rows
            return
        ipc = require("pyarrow.ipc", "arrow", str(self.path))
        opened = stack.enter_context(self._arrow.OSFile(str(self.path)))
        if self._kind == "arrow":
            reader = ipc.open_file(opened)
            self._check_schema(reader.schema)
            count = reader.num_record_batches
            batches = (
                (reader.get_batch(i), self.input_bytes * (i + 1) // count) for i in range(count)
            )
        else:
            reader = ipc.open_stream(opened)
            self._check_schema(reader.schema)
            batches = ((batch, opened.tell()) for batch in reader)
        for batch, end in batches:
            # Offsets inside an IPC file are used as they stand, so they are checked before.
            batch.validate(full=True)
            yield batch, end

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
        if self._is_binary(embedding) or (is_list and types.is_float32(embedding.value_type)):
            return
        raise BuildError(
            f"{self.path}: column 'embedding' is of type {embedding}, needed is a list of float, "
            "or binary"
        )

    def _is_binary(self, kind: Any) -> bool:
        types = self._arrow.types
        return bool(
            types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
        )

    def _changes(self, batch: Any) -> BytesBatch:
        embeddings = batch.column("embedding")
        if not (self._deletions and embeddings.null_count):
            return self._pairs(batch)
        if batch.column("key").null_count:
            raise BuildError(f"{self.path}: column 'key' has a null; every row needs one")
        keys = _as_uint64(batch.column("key").to_numpy(zero_copy_only=False))
        widths = np.zeros(len(keys), np.int64)
        stays = embeddings.is_valid()
        if not stays.true_count:
            return keys, ByteValues.of_widths(widths, np.empty(0, np.uint8))
        _, values = self._pairs(batch.filter(stays))
        widths[stays.to_numpy(zero_copy_only=False)] = values.widths
        return keys, ByteValues.of_widths(widths, values.values)

    def _pairs(self, batch: Any) -> BytesBatch:
        key_column, rows = (batch.column(name) for name in _COLUMNS)
        for name, column in (("key", key_column), ("embedding", rows)):
            if column.null_count:
                raise BuildError(
                    f"{self.path}: column {name!r} has a null; every row needs both"
                    " (but in the input of a delta, where a null embedding deletes its key)"
                )
        keys = _as_uint64(key_column.to_numpy(zero_copy_only=False))
        values = self._bytes(rows) if self._is_binary(rows.type) else self._floats(rows)
        widths = values.widths
        if len(others := np.flatnonzero((widths < 1) | (widths > VALUE_BYTES_MAX))):
            raise BuildError(
                f"{self.path}: key {keys[others[0]]}: a value of {widths[others[0]]} bytes; "
                f"supported are 1 to {VALUE_BYTES_MAX}"
            )
        return keys, values

    def _floats(self, rows: Any) -> ByteValues:
        elements = rows.flatten()
        if elements.null_count:
            raise BuildError(f"{self.path}: a null inside an 'embedding'")
        values = np.ascontiguousarray(elements.to_numpy(zero_copy_only=False)).view(np.uint8)
        if self._arrow.types.is_fixed_size_list(rows.type):
            return ByteValues.of_rows(values.reshape(len(rows), rows.type.list_size * 4))
        offsets = rows.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
        return ByteValues((offsets - offsets[0]) * 4, values)

    def _bytes(self, rows: Any) -> ByteValues:
        rows = rows.cast(self._arrow.large_binary())
        _, offsets_buffer, values_buffer = rows.buffers()
        offsets = np.frombuffer(offsets_buffer, np.int64)[rows.offset :][: len(rows) + 1]
        values = np.frombuffer(values_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
        return ByteValues(offsets - offsets[0], values)

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
