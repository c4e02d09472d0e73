"""Lookups through a delta over its base, against the base alone; merging and folding."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.kernel import KEYS_PER_REQUEST, VALUE_BYTES
from cube_core import _native
from cube_server.folding import DELTA_ROWS_MAX

SHARES = (0.01, 0.1)
"""Rows of the delta over those of the base; with DELTA_ROWS_MAX the second is where `cube-server`
folds them."""
_PATCH_ROWS = 10_000
KINDS = ("of the base", "half in the delta", "in the delta", "in neither")

Keys = NDArray[np.uint64]
T = TypeVar("T")


@dataclass(frozen=True)
class LookupFigures:
    """Seeks of one kind of keys, base and base with delta taking turns."""

    kind: str
    base_ns_per_key: float
    over_ns_per_key: float

    @property
    def ratio(self) -> float:
        return self.over_ns_per_key / self.base_ns_per_key


@dataclass(frozen=True)
class DeltaFigures:
    base_keys: int
    delta_keys: int
    lookups: list[LookupFigures]
    lay_over_s: float
    filter_bytes_per_row: float
    patch_merge_s: float
    """A patch of 10,000 rows into the delta, to the renamed file."""
    patch_merge_cpu_s: float
    fold_rows_per_s: float
    """Rows of the whole table that base and delta become, to the renamed file."""
    fold_rows_per_cpu_s: float


def measure(key_count: int, run_dir: Path, *, rounds: int) -> list[DeltaFigures]:
    """Nine tenths of a delta's keys are the base's, one tenth are new."""
    random = np.random.default_rng(7)
    keys = random.integers(0, 2**64, key_count, dtype=np.uint64)
    base_path = run_dir / "base.table"
    _write(base_path, keys, "1_1")
    base = _native.Table.open(str(base_path))
    figures = []
    for share in SHARES:
        rows = min(int(key_count * share), DELTA_ROWS_MAX)
        new = random.integers(0, 2**64, rows // 10, dtype=np.uint64)
        changed = np.concatenate([keys[: rows - len(new)], new])
        figures.append(_measure_delta(base, keys, changed, run_dir, random, rounds))
    base_path.unlink()
    return figures


def _measure_delta(
    base: _native.Table,
    keys: Keys,
    changed: Keys,
    run_dir: Path,
    random: np.random.Generator,
    rounds: int,
) -> DeltaFigures:
    path, patch_path, merged_path = (run_dir / name for name in ("delta", "patch", "merged"))
    _write(path, changed, "1_2", base_version="1_1")
    _write(patch_path, keys[-_PATCH_ROWS:], "1_3", base_version="1_1")
    delta, patch = _native.Table.open(str(path)), _native.Table.open(str(patch_path))
    lay_over_s, _, over = _timed(lambda: base.with_delta(delta))
    neither = random.integers(0, 2**64, 1_000_000, dtype=np.uint64)
    half = np.concatenate([random.choice(keys, len(changed)), changed])
    pools = dict(zip(KINDS, (keys, half, changed, neither), strict=True))
    lookups = [
        take_turns(kind, base, over, pool, random, requests=rounds * 200)
        for kind, pool in pools.items()
    ]
    patch_s, patch_cpu_s, _ = _timed(
        lambda: _native.merge_tables(str(merged_path), [delta, patch], version="1_3")
    )
    fold_s, fold_cpu_s, folded = _timed(
        lambda: _native.merge_tables(str(merged_path), [base, delta], version="1_2")
    )
    parts_bytes = base.memory_bytes + delta.memory_bytes
    for made in (path, patch_path, merged_path):
        made.unlink()
    return DeltaFigures(
        base_keys=base.key_count,
        delta_keys=delta.key_count,
        lookups=lookups,
        lay_over_s=lay_over_s,
        filter_bytes_per_row=(over.memory_bytes - parts_bytes) / delta.key_count,
        patch_merge_s=patch_s,
        patch_merge_cpu_s=patch_cpu_s,
        fold_rows_per_s=folded.key_count / fold_s,
        fold_rows_per_cpu_s=folded.key_count / fold_cpu_s,
    )


def take_turns(
    kind: str,
    base: _native.Table,
    over: _native.Table,
    pool: Keys,
    random: np.random.Generator,
    *,
    requests: int,
) -> LookupFigures:
    """Every request is made once, so no row is in a cache for having been sought before. The lower
    third of the times is counted, since other work on the machine only adds to them."""
    seekers = []
    for table in (base, over):
        seeker = _native.Seeker(keys_per_request_max=KEYS_PER_REQUEST, frame_bytes_max=1 << 26)
        seeker.set_tables(table)
        seekers.append(seeker)
    times_ns: tuple[list[int], list[int]] = ([], [])
    for turn in range(2 * requests):
        which = (turn + turn // 2) % 2  # base, over, over, base, …
        payload = _native.SeekPlan(random.choice(pool, KEYS_PER_REQUEST), 1).payload(0)
        begin = time.perf_counter_ns()
        seekers[which].seek(payload)
        times_ns[which].append(time.perf_counter_ns() - begin)
    base_ns, over_ns = (float(np.percentile(each, 33)) / KEYS_PER_REQUEST for each in times_ns)
    return LookupFigures(kind, base_ns, over_ns)


def _write(path: Path, keys: Keys, version: str, *, base_version: str = "") -> None:
    values = np.zeros((len(keys), VALUE_BYTES), dtype=np.uint8)
    _native.write_table(
        str(path),
        keys,
        values,
        dict_name="bench",
        version=version,
        shard=0,
        shard_num=1,
        base_version=base_version,
    )


def _timed(work: Callable[[], T]) -> tuple[float, float, T]:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - begin, time.process_time() - begin_cpu, result
