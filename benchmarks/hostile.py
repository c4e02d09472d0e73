"""What hostile peers cost healthy clients of a shard server, and the server in memory.

python -m benchmarks.hostile --programs=build/bench
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.hostile_peers import ATTACKS
from benchmarks.machine import machine
from benchmarks.peers import Server, cube_server
from cube_core import _native
from cube_core.command_line import run

KEY_COUNT = 1_000_000
VALUE_BYTES = 40
KEYS_PER_REQUEST = 26
CONNECTIONS = 2
_SAMPLE_INTERVAL_S = 0.02

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass
class Cost:
    """What one attack costs; a p99 a round, at rest and right after under attack."""

    attack: str
    connections: int
    rest_p99_us: list[float] = field(default_factory=list)
    attack_p99_us: list[float] = field(default_factory=list)
    rest_rss_mib: float = 0.0
    attack_rss_mib_max: float = 0.0

    @property
    def p99_ratio(self) -> float:
        """Of the medians of all rounds."""
        return statistics.median(self.attack_p99_us) / statistics.median(self.rest_p99_us)


@contextlib.contextmanager
def attacking(attack: str, port: int) -> Iterator[None]:
    """Runs an attack, which has its connections open when the block begins."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.hostile_peers",
        f"--attack={attack}",
        f"--port={port}",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        line = process.stdout.readline() if process.stdout else ""
        if line.strip() != "attacking":
            raise RuntimeError(f"the attack {attack} did not begin")
        yield
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def rss_mib(pid: int) -> float:
    """Resident memory of a process and its children, pages they share counted each time."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return pages * 4096 / 2**20 + sum(rss_mib(int(child)) for child in children)


class RssMax:
    """The largest resident memory of a process while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self.mib = 0.0

    def __enter__(self) -> RssMax:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(_SAMPLE_INTERVAL_S):
            with contextlib.suppress(OSError):
                self.mib = max(self.mib, rss_mib(self._pid))


@contextlib.contextmanager
def _server(run_dir: Path) -> Iterator[Server]:
    keys = np.arange(KEY_COUNT, dtype=np.uint64)
    values = np.zeros((KEY_COUNT, VALUE_BYTES), np.uint8)
    table = run_dir / "bench_part0.table"
    _native.write_table(
        str(table), keys, values, dict_name="bench", version="1_1", shard=0, shard_num=1
    )
    with cube_server(table, "1_1", run_dir) as server:
        yield server


def _p99_us(load: Path, server: Server, requests: int) -> float:
    command = [
        str(load), "--protocol=prpc", f"--port={server.port}", f"--connections={CONNECTIONS}",
        f"--keys={KEYS_PER_REQUEST}", f"--requests={requests}", f"--key_space={KEY_COUNT}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    if done.returncode:
        raise RuntimeError(f"a healthy client failed: {done.stderr.strip()}")
    return float(json.loads(done.stdout)["p99_us"])


def measure(load: Path, server: Server, attack: str, *, rounds: int, requests: int) -> Cost:
    """Healthy load at rest and under attack, in turn, so that drifts of the machine hit both."""
    cost = Cost(attack, ATTACKS[attack].connections)
    _p99_us(load, server, requests)
    cost.rest_rss_mib = rss_mib(server.pid)
    for _ in range(rounds):
        cost.rest_p99_us.append(_p99_us(load, server, requests))
        with RssMax(server.pid) as rss, attacking(attack, server.port):
            cost.attack_p99_us.append(_p99_us(load, server, requests))
        cost.attack_rss_mib_max = max(cost.attack_rss_mib_max, rss.mib)
    return cost


@app.command()
def main(
    programs: Annotated[Path, typer.Option("--programs", help="Directory of load.")],
    results: Annotated[
        Path, typer.Option("--results", help="Where the figures are written.")
    ] = Path("benchmarks/hostile.json"),
    rounds: Annotated[int, typer.Option("--rounds", min=1)] = 5,
    requests: Annotated[int, typer.Option("--requests", min=1000, help="Of a round.")] = 20_000,
) -> None:
    """Measures p99 of healthy clients and the server's memory, at rest and under each attack.

    Example: python -m benchmarks.hostile --programs=build/bench --rounds=3
    """
    console = Console()
    table = Table(
        title=f"{CONNECTIONS} healthy connections, {KEYS_PER_REQUEST} keys a request; the server"
        f" serves {KEY_COUNT:,} keys of {VALUE_BYTES} bytes with its default limits"
    )
    for column in (
        "attack",
        "connections",
        "p99 at rest µs",
        "attacked µs",
        "ratio",
        "RSS MiB",
        "attacked MiB",
    ):
        table.add_column(column, justify="right")
    costs = []
    for attack in ATTACKS:
        # A server of its own for each: what an attack leaves behind is not charged to the next.
        with (
            tempfile.TemporaryDirectory(prefix="cube-hostile-") as directory,
            _server(Path(directory)) as server,
        ):
            cost = measure(programs / "load", server, attack, rounds=rounds, requests=requests)
        costs.append(cost)
        table.add_row(
            cost.attack,
            str(cost.connections),
            f"{statistics.median(cost.rest_p99_us):.0f}",
            f"{statistics.median(cost.attack_p99_us):.0f}",
            f"{cost.p99_ratio:.2f}",
            f"{cost.rest_rss_mib:.0f}",
            f"{cost.attack_rss_mib_max:.0f}",
        )
    console.print(table)
    figures = [{**asdict(cost), "p99_ratio": cost.p99_ratio} for cost in costs]
    results.write_text(json.dumps({"machine": machine(), "hostile": figures}, indent=1) + "\n")
    console.print(f"written to {results}")


if __name__ == "__main__":
    run(app)
