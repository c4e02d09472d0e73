"""The seek kernel alone, bytes to bytes, one core."""

from __future__ import annotations

import contextlib
import ctypes
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cube_core import _native

VALUE_BYTES = 40
KEYS_PER_REQUEST = 650
_REQUESTS = 64
_PR_SET_THP_DISABLE = 41


@dataclass(frozen=True)
class KernelFigures:
    """Figures of one table size."""

    key_count: int
    build_ns_per_key: float
    open_s: float
    overhead_bytes_per_key: float
    memory_overhead_bytes_per_key: float
    seek_ns_per_key: float
    seek_ns_per_key_min: float
    seek_ns_per_key_small_pages: float
    seek_ns_per_key_shared: float


def measure(key_count: int, run_dir: Path, *, rounds: int) -> KernelFigures:
    """Builds a table of random 64-bit keys, opens it, and seeks found keys in random order."""
    random = np.random.default_rng(7)
    keys = np.unique(random.integers(0, 2**64, key_count, dtype=np.uint64))
    values = np.broadcast_to(np.arange(VALUE_BYTES, dtype=np.uint8), (len(keys), VALUE_BYTES))
    values = np.ascontiguousarray(values)
    path = run_dir / f"kernel_{key_count}.table"
    begin = time.perf_counter()
    report = _native.write_table(
        str(path), keys, values, dict_name="bench", version="1_1", shard=0, shard_num=1
    )
    build_s = time.perf_counter() - begin
    del values
    begin = time.perf_counter()
    table = _native.Table.open(str(path))
    open_s = time.perf_counter() - begin
    ns_per_key = _seek_ns_per_key(table, keys, random, rounds)
    memory_bytes = table.memory_bytes
    del table
    with _no_huge_pages():
        small_pages = _median_of_open(path, keys, random, rounds, shared=False)
    shared = _median_of_open(path, keys, random, rounds, shared=True)
    path.unlink()
    return KernelFigures(
        key_count=len(keys),
        build_ns_per_key=build_s / len(keys) * 1e9,
        open_s=open_s,
        overhead_bytes_per_key=report.overhead_bytes_per_key,
        memory_overhead_bytes_per_key=memory_bytes / len(keys) - VALUE_BYTES,
        seek_ns_per_key=statistics.median(ns_per_key),
        seek_ns_per_key_min=min(ns_per_key),
        seek_ns_per_key_small_pages=small_pages,
        seek_ns_per_key_shared=shared,
    )


@contextlib.contextmanager
def _no_huge_pages() -> Iterator[None]:
    """Memory that this process maps meanwhile gets no huge pages."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_THP_DISABLE)")
    try:
        yield
    finally:
        libc.prctl(_PR_SET_THP_DISABLE, 0, 0, 0, 0)


def _median_of_open(
    path: Path, keys: np.ndarray, random: np.random.Generator, rounds: int, *, shared: bool
) -> float:
    table = _native.Table.open(str(path), shared=shared)
    return statistics.median(_seek_ns_per_key(table, keys, random, rounds))


def _seek_ns_per_key(
    table: _native.Table, keys: np.ndarray, random: np.random.Generator, rounds: int
) -> list[float]:
    seeker = _native.Seeker(keys_per_request_max=1 << 20, frame_bytes_max=1 << 26)
    seeker.set_tables(table)
    figures = []
    for _ in range(rounds + 1):
        requests = [
            _native.SeekPlan(random.choice(keys, KEYS_PER_REQUEST), 1).payload(0)
            for _ in range(_REQUESTS)
        ]
        begin = time.perf_counter()
        for request in requests:
            seeker.seek(request)
        elapsed_s = time.perf_counter() - begin
        figures.append(elapsed_s / (_REQUESTS * KEYS_PER_REQUEST) * 1e9)
    return figures[1:]
