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
