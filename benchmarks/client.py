"""Latency of a batch read as the caller sees it: CubeClient against redis-py with hiredis."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import cube_server, redis_server
from cube_api import CubeClient
from cube_core import _native

KEY_COUNT = 1_000_000
VALUE_BYTES = 40
KEYS_PER_SEEK = 1300
SHARDS = 2
_SEEKS_PER_ROUND = 500


@dataclass(frozen=True)
class Latency:
    """Latencies of one client over all rounds."""

    client: str
    p50_us: float
    p99_us: float


def measure(run_dir: Path, *, rounds: int) -> list[Latency]:
    """Asks both for the same keys, round by round in turn."""
    keys = np.arange(KEY_COUNT, dtype=np.uint64)
    values = np.random.default_rng(1).integers(0, 256, (KEY_COUNT, VALUE_BYTES), dtype=np.uint8)
    with contextlib.ExitStack() as stack:
        nodes = []
        for shard in range(SHARDS):
            shard_dir = run_dir / f"client_shard_{shard}"
            shard_dir.mkdir()
            mine = keys % np.uint64(SHARDS) == shard
            table = shard_dir / f"bench_part{shard}.table"
            _native.write_table(
                str(table),
                keys[mine],
                values[mine],
                dict_name="bench",
                version="1_1",
                shard=shard,
                shard_num=SHARDS,
            )
            server = stack.enter_context(cube_server(table, "1_1", shard_dir))
            nodes.append({"ip": "127.0.0.1", "port": server.port})
        conf = run_dir / "cube.conf"
        conf.write_text(json.dumps([{"dict_name": "bench", "shard": SHARDS, "nodes": nodes}]))
        cube = stack.enter_context(CubeClient(str(conf)))
        asks: dict[str, Callable[[np.ndarray], object]] = {
            "CubeClient.seek": lambda batch: cube.seek("bench", batch)
        }
        redis_ask = _redis_ask(stack, keys, values, run_dir)
        if redis_ask is not None:
            asks["redis-py + hiredis mget"] = redis_ask
        return _latencies(asks, rounds)


def _redis_ask(
    stack: contextlib.ExitStack, keys: np.ndarray, values: np.ndarray, run_dir: Path
) -> Callable[[np.ndarray], object] | None:
    try:
        import hiredis  # noqa: F401
        import redis
    except ImportError:
        return None
    if shutil.which("redis-server") is None:
        return None
    server = stack.enter_context(redis_server(keys, values, run_dir))
    connection = stack.enter_context(redis.Redis(port=server.port))
    return lambda batch: connection.mget(batch.tolist())


def _latencies(asks: dict[str, Callable[[np.ndarray], object]], rounds: int) -> list[Latency]:
    random = np.random.default_rng(2)
    elapsed_us: dict[str, list[float]] = {name: [] for name in asks}
    for round_number in range(rounds + 1):
        batches = random.integers(0, KEY_COUNT, (_SEEKS_PER_ROUND, KEYS_PER_SEEK), dtype=np.uint64)
        for name, ask in asks.items():
            for batch in batches:
                begin = time.perf_counter()
                ask(batch)
                if round_number:  # the first round connects and warms
                    elapsed_us[name].append((time.perf_counter() - begin) * 1e6)
    return [
        Latency(name, float(np.percentile(us, 50)), float(np.percentile(us, 99)))
        for name, us in elapsed_us.items()
    ]
