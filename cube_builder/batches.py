"""Pairs as they move through a build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cube_builder.changes import Changes

Batch = tuple[NDArray[np.uint64], NDArray[np.uint8]]
"""Keys uint64[m] and values uint8[m, width]."""

BATCH_BYTES = 8 << 20
VALUE_BYTES_MAX = 65_535


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

    def changes(self) -> Iterator[tuple[Changes, int]]:
        """The same of a source that was opened for its deletions too; instead of `batches`."""
