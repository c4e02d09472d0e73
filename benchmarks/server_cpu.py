"""Server CPU per request: ours, the C++ epoll floor, Redis MGET, memcached get, side by side."""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import Server, cube_server, floor_server, memcached_server, redis_server
from cube_core import _native

KEY_COUNT = 1_000_000
VALUE_BYTES = 40
CONNECTIONS = 8
_REQUESTS_MIN, _REQUESTS_MAX = 2_000, 200_000


@dataclass(frozen=True)
class Rounds:
    """CPU µs per request of one server at one batch size, a figure a round."""

    server: str
    keys: int
    cpu_us: list[float]
    p50_us: float
    p99_us: float

    @property
    def median_us(self) -> float:
        return statistics.median(self.cpu_us)


def measure(
    programs: Path, run_dir: Path, *, batch_sizes: tuple[int, ...], rounds: int, keys_per_round: int
) -> list[Rounds]:
    """Drives every server in turn, round by round, so that drifts of the machine hit all alike.

    Args:
        programs: directory of the built `load` and `floor`.
        keys_per_round: keys that one round asks for, as far as that is 2,000 to 200,000 requests.
    """
    with _servers(programs / "floor", run_dir) as servers:
        return [
            _rounds(programs / "load", server, keys, rounds, _requests(keys_per_round, keys))
            for keys in batch_sizes
            for server in servers
        ]


def _requests(keys_per_round: int, keys: int) -> int:
    return min(max(_REQUESTS_MIN, keys_per_round // keys), _REQUESTS_MAX)


@contextlib.contextmanager
def _servers(floor: Path, run_dir: Path) -> Iterator[list[Server]]:
    random = np.random.default_rng(1)
    keys = np.arange(KEY_COUNT, dtype=np.uint64)
    values = random.integers(0, 256, (KEY_COUNT, VALUE_BYTES), dtype=np.uint8)
    table = run_dir / "bench_part0.table"
    _native.write_table(
        str(table), keys, values, dict_name="bench", version="1_1", shard=0, shard_num=1
    )
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(cube_server(table, "1_1", run_dir)),
            stack.enter_context(floor_server(floor, table, run_dir)),
        ]
        if shutil.which("redis-server"):
            servers.append(stack.enter_context(redis_server(keys, values, run_dir)))
        if shutil.which("memcached"):
            servers.append(stack.enter_context(memcached_server(keys, values, run_dir)))
        yield servers


def _rounds(load: Path, server: Server, keys: int, rounds: int, requests: int) -> Rounds:
    cpu_us: list[float] = []
    reports: list[dict[str, float]] = []
    for seed in range(rounds + 1):
        before_s = server.cpu_s()
        report = _drive(load, server, keys, requests, seed)
        if seed:  # the first round warms caches and allocators
            cpu_us.append((server.cpu_s() - before_s) / requests * 1e6)
            reports.append(report)
        if report["found"] != requests * keys:
            raise RuntimeError(f"{server.name} found {report['found']} of {requests * keys} keys")
    return Rounds(
        server.name,
        keys,
        cpu_us,
        statistics.median(report["p50_us"] for report in reports),
        statistics.median(report["p99_us"] for report in reports),
    )


def _drive(load: Path, server: Server, keys: int, requests: int, seed: int) -> dict[str, float]:
    command = [
        str(load), f"--protocol={server.protocol}", f"--port={server.port}",
        f"--connections={CONNECTIONS}", f"--keys={keys}", f"--requests={requests}",
        f"--key_space={KEY_COUNT}", f"--seed={seed + 1}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"{server.name}: {done.stderr.strip()}")
    result: dict[str, float] = json.loads(done.stdout)
    return result
