"""What a caller notices when one of two replicas is killed under load, or answers 50 ms late."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import cube_server, ready_process
from cube_api import CubeClient, CubeError, DictConf
from cube_core import _native

KEY_COUNT = 100_000
KEYS_PER_SEEK = 650
DELAY_MS = 50
BACKUP_REQUEST_MS = 10
THREADS = 4
_LOAD_S = 2.0
_SEEKS_PER_ROUND = 400


@dataclass(frozen=True)
class Killed:
    """Seeks of several threads while one of two replicas is killed with SIGKILL."""

    seeks: int
    failed: int
    max_us: float


@dataclass(frozen=True)
class Slowed:
    """Latencies with both replicas at their normal speed, and with one of them late."""

    seeks: int
    normal_p50_us: float
    normal_p99_us: float
    slowed_p50_us: float
    slowed_p99_us: float
    slowed_max_us: float

    @property
    def p99_ratio(self) -> float:
        return self.slowed_p99_us / self.normal_p99_us


def measure_killed(run_dir: Path) -> Killed:
    """Half of the load before the kill, half of it after."""
    with _two_replicas(run_dir) as replicas, CubeClient(_conf([p for p, _ in replicas])) as cube:
        elapsed_s: list[float] = []
        failures: list[CubeError] = []
        stopped = threading.Event()

        def load() -> None:
            keys = np.random.default_rng().integers(0, KEY_COUNT, KEYS_PER_SEEK, dtype=np.uint64)
            while not stopped.is_set():
                begin_s = time.perf_counter()
                try:
                    cube.seek("bench", keys)
                except CubeError as error:
                    failures.append(error)
                elapsed_s.append(time.perf_counter() - begin_s)

        threads = [threading.Thread(target=load) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        time.sleep(_LOAD_S)
        os.kill(replicas[0][1], signal.SIGKILL)
        time.sleep(_LOAD_S)
        stopped.set()
        for thread in threads:
            thread.join()
        return Killed(len(elapsed_s), len(failures), max(elapsed_s) * 1e6)


def measure_slowed(run_dir: Path, *, rounds: int) -> Slowed:
    """Both ways pass proxies, in turn round by round; only the delay of one differs."""
    with contextlib.ExitStack() as stack:
        ports = [port for port, _ in stack.enter_context(_two_replicas(run_dir))]
        sound = [stack.enter_context(_proxy(port, 0, run_dir)) for port in ports]
        slow = stack.enter_context(_proxy(ports[0], DELAY_MS, run_dir))
        clients = [
            stack.enter_context(CubeClient(_conf(replicas)))
            for replicas in (sound, [slow, sound[1]])
        ]
        random = np.random.default_rng(3)
        elapsed_us: list[list[float]] = [[], []]
        for _ in range(rounds):
            batches = random.integers(
                0, KEY_COUNT, (_SEEKS_PER_ROUND, KEYS_PER_SEEK), dtype=np.uint64
            )
            for client, latencies in zip(clients, elapsed_us, strict=True):
                for batch in batches:
                    begin_s = time.perf_counter()
                    client.seek("bench", batch)
                    latencies.append((time.perf_counter() - begin_s) * 1e6)
        normal, slowed = elapsed_us
        return Slowed(
            len(slowed),
            *(float(np.percentile(us, each)) for us in (normal, slowed) for each in (50, 99)),
            max(slowed),
        )


def _conf(ports: list[int]) -> dict[str, DictConf]:
    replicas = ",".join(f"127.0.0.1:{port}" for port in ports)
    fields = {
        "dict_name": "bench",
        "shard": 1,
        "timeout": 2000,
        "backup_request": BACKUP_REQUEST_MS,
        "type": "ipport_list",
        "nodes": [{"ipport_list": f"list://{replicas}"}],
    }
    return {"bench": DictConf.model_validate(fields)}


@contextlib.contextmanager
def _two_replicas(run_dir: Path) -> Iterator[list[tuple[int, int]]]:
    """Port and pid of each."""
    keys = np.arange(KEY_COUNT, dtype=np.uint64)
    values = np.random.default_rng(1).integers(0, 256, (KEY_COUNT, 40), dtype=np.uint8)
    with contextlib.ExitStack() as stack:
        replicas = []
        for number in range(2):
            replica_dir = Path(tempfile.mkdtemp(prefix=f"replica_{number}_", dir=run_dir))
            table = replica_dir / "bench_part0.table"
            _native.write_table(
                str(table), keys, values, dict_name="bench", version="1_1", shard=0, shard_num=1
            )
            server = stack.enter_context(cube_server(table, "1_1", replica_dir))
            replicas.append((server.port, server.pid))
        yield replicas


@contextlib.contextmanager
def _proxy(port: int, delay_ms: int, run_dir: Path) -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.slow_proxy", str(port), str(delay_ms)]
    with ready_process(command, run_dir / f"proxy_{delay_ms}.log") as line:
        yield int(line.rpartition("port=")[2])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="cube-bench-") as directory:
        print(measure_killed(Path(directory)))
        slowed_figures = measure_slowed(Path(directory), rounds=10)
        print(slowed_figures, f"p99 ratio {slowed_figures.p99_ratio:.2f}")
