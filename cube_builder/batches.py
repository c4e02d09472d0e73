"""Pairs as they move through a build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cube_core._native import take_bytes

Batch = tuple[NDArray[np.uint64], NDArray[np.uint8]]
"""Keys uint64[m] and values uint8[m, width]."""


@dataclass(frozen=True)
class ByteValues:
    """Values of any width, end to end: value i of `values` (uint8[b]) is between offsets i and
    i + 1 of `offsets` (int64[m + 1])."""

    offsets: NDArray[np.int64]
    values: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def widths(self) -> NDArray[np.int64]:
        """int64[m]: bytes of each value."""
        return np.diff(self.offsets)

    def take(self, indexes: NDArray[np.intp]) -> ByteValues:
        """The values with these indexes, in their order."""
        return ByteValues(*take_bytes(self.offsets, self.values, indexes.astype(np.int64)))

    def value(self, i: int) -> bytes:
        return self.values[self.offsets[i] : self.offsets[i + 1]].tobytes()

    @classmethod
    def of_widths(cls, widths: NDArray[np.int64], values: NDArray[np.uint8]) -> ByteValues:
        """Values that stand end to end, from their widths int64[m]."""
        offsets = np.zeros(len(widths) + 1, np.int64)
        np.cumsum(widths, out=offsets[1:])
        return cls(offsets, values)

    @classmethod
    def of_rows(cls, rows: NDArray[np.uint8]) -> ByteValues:
        """Values of one width, uint8[m, width]."""
        offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
        return cls(offsets, np.ascontiguousarray(rows).reshape(-1))


Values = NDArray[np.uint8] | ByteValues
"""uint8[m, width], or values with a width each."""

BytesBatch = tuple[NDArray[np.uint64], ByteValues]
"""Keys uint64[m] and as many values."""

ValueWidth = Literal["fixed", "variable"]
VALUE_WIDTHS: tuple[ValueWidth, ...] = ("fixed", "variable")

BATCH_BYTES = 8 << 20
VALUE_BYTES_MAX = 65_535

ONE_WIDTH = "a pass has one width, unless it is built with --value_width=variable"
"""What to say of a value of another width."""


class Source(Protocol):
    """One input of a pass: a file, or a directory that is read as one."""

    path: Path

    @property
    def value_bytes(self) -> int:
        """Width of every value; 0 when there is none."""

    @property
    def input_bytes(self) -> int: ...

    def batches(self) -> Iterator[tuple[Batch, int]]:
        """Yields batches of at most some 8 MiB, and the bytes of the input consumed so far; once
        for an object."""

    def byte_batches(self) -> Iterator[tuple[BytesBatch, int]]:
        """`batches` of values that may each have another width; instead of it. Those of a source
        that was opened for its deletions have empty values too, which delete their key."""
