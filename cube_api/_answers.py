"""What becomes of the answers to a seek: rows of float32, or bytes of any width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cube_api._missing import fill_missing, require_found
from cube_api._options import SeekOptions
from cube_api._result import SeekBytesResult, SeekResult
from cube_api._topology import DictTopology
from cube_core._native import SeekPlan
from cube_core.errors import SeekError, WireError

_FLOAT_BYTES = 4

R_co = TypeVar("R_co", covariant=True)


class Answers(Protocol[R_co]):
    """Takes the DictResponse of each shard, and makes the result of a seek of them."""

    def take(self, shard: int, body: memoryview) -> str | None:
        """Takes a shard's answer, maybe in the place of an earlier one; returns its version.

        Raises:
            WireError: malformed.
        """

    def result(
        self,
        bodies: Mapping[int, memoryview],
        failed: Sequence[int],
        version: str | None,
        errors: tuple[SeekError, ...],
        *,
        is_mixed: bool,
    ) -> R_co:
        """The result of the answers that hold in the end.

        Args:
            bodies: by shard, each taken before.
            failed: the shards that are to be told by status.
            is_mixed: answers were taken that do not hold any more.

        Raises:
            MissingKeysError: keys are missing, and the options want an error then.
        """


class RowAnswers:
    """Rows of one width: that of the options, else of the first value found.

    Args:
        taken: rows and status of answers that were taken before.
    """

    def __init__(
        self,
        target: DictTopology,
        keys: NDArray[np.uint64],
        plan: SeekPlan,
        options: SeekOptions,
        taken: tuple[NDArray[np.float32], NDArray[np.int32]] | None = None,
    ) -> None:
        self._dict = target
        self._keys = keys
        self._plan = plan
        self._options = options
        self._dim = dim = options.width
        self._rows: NDArray[np.float32] | None = None
        if taken is not None:
            self._rows, self._status = taken
            return
        self._status = np.empty(len(keys), np.int32)
        if dim is not None:
            # Every row is written by the answer, or the failure, of its shard.
            self._rows = np.empty((len(keys), dim), np.float32)

    def take(self, shard: int, body: memoryview) -> str | None:
        if self._rows is None:
            value_bytes = self._plan.value_bytes(shard, body)
            if value_bytes % _FLOAT_BYTES:
                raise WireError(
                    f"a value of {value_bytes} bytes is no row of float32; seek_bytes takes it"
                )
            if value_bytes:
                self._rows = self._zeros(value_bytes // _FLOAT_BYTES)
        # While no value was found only status is worth keeping.
        rows = self._zeros(1) if self._rows is None else self._rows
        return self._plan.decode(shard, body, rows, self._status) or None

    def result(
        self,
        bodies: Mapping[int, memoryview],
        failed: Sequence[int],
        version: str | None,
        errors: tuple[SeekError, ...],
        *,
        is_mixed: bool,
    ) -> SeekResult:
        if is_mixed and self._dim is None:
            # The first answers may have been of another version, with rows of another width.
            self._rows = None
            for shard, body in bodies.items():
                self.take(shard, body)
        rows = self._rows
        if rows is None:
            rows = self._zeros(self._dict.dim_seen)
        elif self._dim is None:
            self._dict.dim_seen = rows.shape[1]
        for shard in failed:
            self._plan.fail(shard, rows if rows.shape[1] else self._zeros(1), self._status)
        fill_missing(self._keys, rows, self._status, self._options)
        return SeekResult(rows, self._status, version, errors)

    def _zeros(self, dim: int) -> NDArray[np.float32]:
        return np.zeros((len(self._keys), dim), np.float32)


class ByteAnswers:
    """Values as they are, whatever their widths."""

    def __init__(self, keys: NDArray[np.uint64], plan: SeekPlan, options: SeekOptions) -> None:
        self._keys = keys
        self._plan = plan
        self._options = options

    def take(self, shard: int, body: memoryview) -> str | None:
        return self._plan.check_bytes(shard, body) or None

    def result(
        self,
        bodies: Mapping[int, memoryview],
        failed: Sequence[int],
        version: str | None,
        errors: tuple[SeekError, ...],
        *,
        is_mixed: bool,
    ) -> SeekBytesResult:
        offsets, values, status = self._plan.gather_bytes(list(bodies.items()))
        if self._options.on_missing == "raise":
            require_found(self._keys, status)
        return SeekBytesResult(offsets, values, status, version, errors)
