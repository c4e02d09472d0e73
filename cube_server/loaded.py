"""A version in memory."""

from __future__ import annotations

from dataclasses import dataclass

from cube_core._native import Table
from cube_core.versions import Version


@dataclass(frozen=True)
class LoadedTable:
    """What a version is answered from, and how long it took to get there.

    Attributes:
        whole: the table that holds everything, of this version or of an earlier one.
        delta: all that patches changed since `whole`; None when that is of this version.
        table: `whole`, with `delta` laid over it.
    """

    version: Version
    whole: Table
    delta: Table | None
    table: Table
    load_s: float

    @classmethod
    def of_whole(cls, version: Version, whole: Table, load_s: float) -> LoadedTable:
        return cls(version, whole, None, whole, load_s)

    @classmethod
    def of_parts(cls, version: Version, whole: Table, delta: Table, load_s: float) -> LoadedTable:
        """Takes some 50 ns a row of the delta.

        Raises:
            TableError: the delta is of another base, dict or shard, or of other values.
        """
        return cls(version, whole, delta, whole.with_delta(delta), load_s)

    @property
    def whole_version(self) -> Version:
        return Version.parse(self.whole.version)

    @property
    def value_bytes_max(self) -> int:
        """Width of the widest value, in bytes."""
        parts = [self.whole] if self.delta is None else [self.whole, self.delta]
        return max(each.value_bytes_max for each in parts)

    @property
    def delta_rows(self) -> int:
        """Keys that patches changed since `whole`, those they deleted among them."""
        return 0 if self.delta is None else self.delta.key_count

    @property
    def deletion_count(self) -> int:
        return 0 if self.delta is None else self.delta.deletion_count
