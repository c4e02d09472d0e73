"""What a seek returns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import SeekError


class SeekResult(tuple[NDArray[np.float32], NDArray[np.int32]]):
    """Rows and status of a batch of keys, in the order of the keys: `rows, status = …`.

    `rows` is float32[n, dim]; `status` is int32[n]: 0 found, -1 the key is not in the table, -2 its
    value is not `dim` floats wide, -3 its shard failed (only with `on_failure="status"`). The row
    of a key that was not found is zeros, unless a default row was given for those that are missing.
    """

    version: str | None
    """The one version that every row is of; None when the servers name none, or nothing was
    asked."""

    errors: tuple[SeekError, ...]
    """Why shards failed; empty when none did."""

    def __new__(
        cls,
        rows: NDArray[np.float32],
        status: NDArray[np.int32],
        version: str | None = None,
        errors: tuple[SeekError, ...] = (),
    ) -> SeekResult:
        result = super().__new__(cls, (rows, status))
        result.version = version
        result.errors = errors
        return result

    @property
    def rows(self) -> NDArray[np.float32]:
        return self[0]

    @property
    def status(self) -> NDArray[np.int32]:
        return self[1]

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self[0], self[1], self.version, self.errors)

    def __repr__(self) -> str:
        rows_num, dim = self.rows.shape
        return f"SeekResult(rows=float32[{rows_num}, {dim}], version={self.version!r})"


class SeekBytesResult(tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int32]]):
    """Values of any width of a batch of keys, in the order of the keys: `offsets, values, status`.

    `values` is uint8[b], end to end; that of key i is between offsets i and i + 1 of int64[n + 1],
    and empty unless its status in int32[n] is 0: -1 the key is not in the table, -3 its shard
    failed (only with `on_failure="status"`).
    """

    version: str | None
    """As that of SeekResult."""

    errors: tuple[SeekError, ...]
    """Why shards failed; empty when none did."""

    def __new__(
        cls,
        offsets: NDArray[np.int64],
        values: NDArray[np.uint8],
        status: NDArray[np.int32],
        version: str | None = None,
        errors: tuple[SeekError, ...] = (),
    ) -> SeekBytesResult:
        result = super().__new__(cls, (offsets, values, status))
        result.version = version
        result.errors = errors
        return result

    @property
    def offsets(self) -> NDArray[np.int64]:
        return self[0]

    @property
    def values(self) -> NDArray[np.uint8]:
        return self[1]

    @property
    def status(self) -> NDArray[np.int32]:
        return self[2]

    def value(self, i: int) -> NDArray[np.uint8]:
        """A view of the value of the i-th key, from the end when i is negative.

        Raises:
            IndexError: there are not so many keys.
        """
        begin, end = self.offsets[:-1][i], self.offsets[1:][i]
        return self.values[begin:end]

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (*self, self.version, self.errors)

    def __repr__(self) -> str:
        return (
            f"SeekBytesResult(values=[{len(self.status)}] of {len(self.values)} bytes,"
            f" version={self.version!r})"
        )
