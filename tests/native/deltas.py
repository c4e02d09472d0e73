"""Tables and deltas of small numbers, and what they hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core._native import Seeker, SeekPlan, Table, write_table

WIDTH = 8
Rows = Mapping[int, int | None]
"""Key to the number that its value repeats; None: deleted."""


def keys_of(keys: Iterable[int]) -> NDArray[np.uint64]:
    return np.array(list(keys), dtype=np.uint64)


def write(path: Path, rows: Rows, *, version: str = "10_10", **options: object) -> Table:
    """A whole table, or a delta when a `base_version` is given."""
    kept = {key: value for key, value in rows.items() if value is not None}
    values = np.array(list(kept.values()), dtype=np.uint8).repeat(WIDTH).reshape(-1, WIDTH)
    if "base_version" in options:
        options["deletions"] = keys_of(key for key in rows if rows[key] is None)
    names = {"dict_name": "d", "shard": 0, "shard_num": 1, **options}
    write_table(str(path), keys_of(kept), values, version=version, **names)  # type: ignore[arg-type]
    return Table.open(str(path))


def delta(path: Path, rows: Rows, *, version: str = "10_11", **options: object) -> Table:
    return write(path, rows, version=version, **{"base_version": "10_10", **options})


def content(table: Table, slots: int = 7) -> dict[int, int | None]:
    """What iterating over a table gives."""
    rows: dict[int, int | None] = {}
    slot = 0
    while slot < table.slot_count:
        keys, values, after = table.pairs(slot, slots)
        deleted, same_after = table.deletions(slot, slots)
        assert after == same_after == min(slot + slots, table.slot_count)
        rows.update(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
        rows.update(dict.fromkeys(deleted.tolist()))
        slot = after
    return rows


def laid(*layers: Rows) -> dict[int, int]:
    """The rows that layers, oldest first, have together."""
    merged: dict[int, int | None] = {}
    for layer in layers:
        merged.update(layer)
    return {key: value for key, value in merged.items() if value is not None}


def sought(table: Table, keys: NDArray[np.uint64]) -> list[int | None]:
    """What a server answers from the table: the number in each value, None where it is missing."""
    seeker = Seeker(keys_per_request_max=1 << 16, frame_bytes_max=1 << 22)
    seeker.set_tables(table)
    plan = SeekPlan(keys, 1)
    rows = np.empty((len(keys), WIDTH // 4), dtype=np.float32)
    status = np.empty(len(keys), dtype=np.int32)
    plan.decode(0, seeker.seek(plan.payload(0)), rows, status)
    numbers = rows.view(np.uint8)[:, 0].tolist()
    return [number if ok == 0 else None for number, ok in zip(numbers, status, strict=True)]
