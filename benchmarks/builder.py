"""From a SequenceFile to tables, beside `redis-cli --pipe` loading the same rows."""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import empty_redis_server
from cube_core._native import SequenceFileWriter

DIM = 10
SHARD_NUM = 2
_ROWS_PER_BATCH = 100_000
_REDIS_REPLIES = "errors: 0, replies:"


@dataclass(frozen=True)
class BuilderFigures:
    """Rates of one program over the same rows, from process start to end, every round apart.

    The CPU seconds are those of all its processes, so a busy machine does not change them much.
    """

    program: str
    records: int
    median_records_per_s: float
    min_records_per_s: float
    max_records_per_s: float
    records_per_cpu_s: float


def measure(records: int, run_dir: Path, *, rounds: int, redis: bool) -> list[BuilderFigures]:
    """Builds `records` rows of 40 bytes, and loads them into Redis, in turn.

    `cube-builder` has one thread, so its rate is that of one core; Redis has a core of its own
    beside that of `redis-cli`.
    """
    pass_path = run_dir / "builder_pass"
    _write_pass(pass_path, records)
    programs = {"cube-builder": lambda: _build_s(pass_path, run_dir)}
    commands_path = run_dir / "builder_commands"
    if redis and shutil.which("redis-cli") and shutil.which("redis-server"):
        _write_commands(commands_path, records)
        programs["redis-cli --pipe"] = lambda: _load_s(commands_path, records, run_dir)
    elapsed_s: dict[str, list[float]] = {name: [] for name in programs}
    cpu_s: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, run in programs.items():
            cpu_before_s = _children_cpu_s()
            elapsed_s[name].append(run())
            cpu_s[name].append(_children_cpu_s() - cpu_before_s)
    pass_path.unlink()
    commands_path.unlink(missing_ok=True)
    return [
        BuilderFigures(
            program=name,
            records=records,
            median_records_per_s=records / statistics.median(times),
            min_records_per_s=records / max(times),
            max_records_per_s=records / min(times),
            records_per_cpu_s=records / statistics.median(cpu_s[name]),
        )
        for name, times in elapsed_s.items()
    ]


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _rows(records: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(11)
    for start in range(0, records, _ROWS_PER_BATCH):
        count = min(_ROWS_PER_BATCH, records - start)
        keys = random.integers(0, 2**63, count, dtype=np.uint64)
        rows = random.standard_normal((count, DIM), dtype=np.float32)
        yield keys, rows.view(np.uint8)


def _write_pass(path: Path, records: int) -> None:
    with SequenceFileWriter(str(path)) as writer:
        for keys, values in _rows(records):
            writer.append(keys, values)


def _write_commands(path: Path, records: int) -> None:
    with path.open("wb") as file:
        for keys, values in _rows(records):
            for key, value in zip(keys.tolist(), values, strict=True):
                text = b"%d" % key
                file.write(
                    b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                    % (len(text), text, len(value), value.tobytes())
                )


def _build_s(pass_path: Path, run_dir: Path) -> float:
    output = run_dir / "builder_tables"
    command = [
        sys.executable, "-m", "cube_builder.main", "--dict_name=bench", "--cur_version=1",
        f"--input_path={pass_path}", f"--output_path={output}", f"--shard_num={SHARD_NUM}",
    ]  # fmt: skip
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603
    elapsed_s = time.perf_counter() - begin
    shutil.rmtree(output)
    return elapsed_s


def _load_s(commands_path: Path, records: int, run_dir: Path) -> float:
    with empty_redis_server(run_dir) as server, commands_path.open("rb") as commands:
        begin = time.perf_counter()
        done = subprocess.run(  # noqa: S603
            ["redis-cli", "-p", str(server.port), "--pipe"],  # noqa: S607
            stdin=commands,
            check=True,
            capture_output=True,
            text=True,
        )
        elapsed_s = time.perf_counter() - begin
    if f"{_REDIS_REPLIES} {records}" not in done.stdout:
        raise RuntimeError(f"redis-cli --pipe: {done.stdout}")
    return elapsed_s
