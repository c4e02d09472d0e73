"""Tables that stand on disk: what is wrong with them, and what two versions do not share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import BATCH_BYTES, BytesBatch, ByteValues
from cube_builder.job import REPORT_NAME, BuildReport
from cube_core._native import STATUS_DELETED, STATUS_FOUND, Table, crc32c_file
from cube_core.errors import BuildError

_PAIRS_PER_BATCH = 65_536


@dataclass(frozen=True)
class VersionDiff:
    """Numbers of keys that two versions do not share, hold with different values, or share."""

    added: int
    removed: int
    changed: int
    equal: int


OnKeys = Callable[[str, NDArray[np.uint64]], None]
"""Told "added", "removed" or "changed", and the keys uint64[m] of which that is so."""


def table_pairs(table: Table) -> Iterator[BytesBatch]:
    """Yields keys uint64[m] and their values in the order of the slots; then the keys that a delta
    deletes, with empty values."""
    slot = 0
    while slot < table.slot_count:
        keys, offsets, values, slot = table.pairs_bytes(slot, _PAIRS_PER_BATCH, BATCH_BYTES)
        if len(keys):
            yield keys, ByteValues(offsets, values)
    slot = 0
    while slot < table.slot_count and table.deletion_count:
        keys, slot = table.deletions(slot, _PAIRS_PER_BATCH)
        if len(keys):
            yield keys, ByteValues(np.zeros(len(keys) + 1, np.int64), np.empty(0, np.uint8))


def table_files(path: Path) -> list[Path]:
    """A table, or those of a version's directory.

    Raises:
        BuildError: no such path, or a directory without tables.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BuildError(f"{path}: no such file or directory")
    if files := sorted(path.glob("*.table")):
        return files
    raise BuildError(f"{path}: holds no table (*.table)")


def verify(path: Path) -> Table:
    """Reads a whole table and checks its bounds, its checksums and that every key is in its own
    place; where `build.json` lies beside it, also that it is the table which that names.

    Raises:
        TableError: what is wrong, with file and offset.
        BuildError: the table is not that of `build.json`.
        OSError: the file cannot be read.
    """
    table = Table.open(str(path), in_memory=False)
    if (path.parent / REPORT_NAME).is_file():
        _check_against_report(path, table)
    return table


def _check_against_report(path: Path, table: Table) -> None:
    shards = {shard.file: shard for shard in BuildReport.read(path.parent).shards}
    if path.name not in shards:
        raise BuildError(f"{path}: not among the tables of {REPORT_NAME} beside it")
    shard = shards[path.name]
    said = (shard.key_count, shard.file_bytes, shard.crc32c)
    found = (table.key_count, table.file_bytes, crc32c_file(str(path)))
    if said != found:
        raise BuildError(
            f"{path}: keys, bytes and CRC32C are {found}, but {REPORT_NAME} says {said}"
        )


def diff(old_path: Path, new_path: Path, on_keys: OnKeys) -> VersionDiff:
    """Compares two versions, each a directory of tables, or two tables of the same shard. The
    numbers of shards may differ when both are whole.

    A delta counts as what it makes of the other version, which it is laid over. Two deltas are
    compared change by change: a deletion is a value like others.

    Raises:
        BuildError: no tables, or tables that are no version together, or shards that the other
            side lacks.
        TableError: a malformed table, or a delta over another base.
    """
    old, new = _Version(old_path), _Version(new_path)
    if old.is_delta and not new.is_delta:
        old.lay_over(new)
    elif new.is_delta and not old.is_delta:
        new.lay_over(old)
    if old.shard_num != new.shard_num or old.shards != new.shards:
        old.require_whole()
        new.require_whole()
    added = changed = equal = removed = 0
    for keys, values in new.pairs():
        found, same = old.compare(keys, values)
        on_keys("added", keys[~found])
        on_keys("changed", keys[found & ~same])
        added += int(np.count_nonzero(~found))
        changed += int(np.count_nonzero(found & ~same))
        equal += int(np.count_nonzero(same))
    for keys, values in old.pairs():
        found, _ = new.compare(keys, values)
        on_keys("removed", keys[~found])
        removed += int(np.count_nonzero(~found))
    return VersionDiff(added, removed, changed, equal)


class _Version:
    """The tables of a version, found by key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        tables = [Table.open(str(file), in_memory=False) for file in table_files(path)]
        kinds = {(table.dict_name, table.version, table.shard_num, table.kind) for table in tables}
        self._tables = {table.shard: table for table in tables}
        if len(kinds) > 1 or len(self._tables) < len(tables):
            raise BuildError(f"{path}: its tables are not those of one version of one dict")
        self.shard_num = tables[0].shard_num
        self.is_delta = tables[0].kind == "delta"

    def lay_over(self, base: _Version) -> None:
        """Makes these deltas the tables that they and those of `base` are together."""
        if self.shard_num != base.shard_num or self.shards != base.shards:
            raise BuildError(
                f"{self._path}: its tables are deltas, which can be compared with those of the "
                f"same shards; {base._path} has others"
            )
        for shard, delta in self._tables.items():
            self._tables[shard] = base._tables[shard].with_delta(delta)
        self.is_delta = False

    @property
    def shards(self) -> set[int]:
        return set(self._tables)

    def require_whole(self) -> None:
        if missing := sorted(set(range(self.shard_num)) - self.shards):
            raise BuildError(
                f"{self._path}: has no table of shard {missing[0]} of {self.shard_num}; "
                "only the same shards, or whole versions, can be compared"
            )

    def pairs(self) -> Iterator[BytesBatch]:
        for table in self._tables.values():
            yield from table_pairs(table)

    def compare(
        self, keys: NDArray[np.uint64], values: ByteValues
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which keys are in the version, and which with the same value: bool[m] each."""
        found, same = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
        shards = keys % np.uint64(self.shard_num)
        for shard in np.unique(shards).tolist():
            at = np.flatnonzero(shards == shard)
            table = self._tables[shard]
            offsets, here, status = table.get_bytes(keys[at])
            found[at] = (status == STATUS_FOUND) | (status == STATUS_DELETED)
            same[at] = found[at] & _equal(ByteValues(offsets, here), values.take(at))
        return found, same


def _equal(a: ByteValues, b: ByteValues) -> NDArray[np.bool_]:
    """bool[m]: which of m values are the same."""
    equal: NDArray[np.bool_] = a.widths == b.widths
    at = np.flatnonzero(equal & (a.widths > 0))
    if len(at):
        a, b = a.take(at), b.take(at)
        equal[at] = np.logical_and.reduceat(a.values == b.values, a.offsets[:-1])
    return equal
