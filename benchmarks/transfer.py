"""From the line in the donefile to every server's answer: the whole way of a pass."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from cube_core._native import SequenceFileReader, SequenceFileWriter, crc32c_file
from cube_core.command_line import run

DICT_NAME = "bench"
VALUE_BYTES = 40
SHARDS = 2
PARTS = 8
TARGETS_S = {1_000_000: 3.0, 10_000_000: 20.0}
PATCH_ROWS = 10_000
PATCH_TARGET_S = 1.0
DELETED_SHARE = 0.1
_STEPS = {
    "pull": "pulled",
    "build": "built",
    "ship": "shipped",
    "load": "loaded",
    "switch": "switched",
}
_WRITE_ROWS = 100_000
_READY_TIMEOUT_S = 30.0
_SERVED_TIMEOUT_S = 300.0
_POLL_S = 0.005
_IDLE_S = 1.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()


@dataclass(frozen=True)
class Deployment:
    """One pass: seconds from its line to all servers' answer, and the share of each step."""

    what: str
    rows: int
    target_s: float | None
    served_s: float
    steps_s: dict[str, float]


@app.command()
def main(
    rows: Annotated[
        list[int] | None, typer.Option("--rows", help="Of a pass; repeat for several sizes.")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Passes of each size.")] = 3,
    patches: Annotated[
        int, typer.Option("--patches", min=0, help=f"Of {PATCH_ROWS} rows, over each size.")
    ] = 5,
    directory: Annotated[
        Path | None, typer.Option("--directory", help="Where passes and tables are written.")
    ] = None,
) -> None:
    """Measures how long bases and patches take from the line until all servers answer from them.

    Example: python -m benchmarks.transfer --rows=1000000 --rounds=3
    """
    sizes = rows or list(TARGETS_S)
    with tempfile.TemporaryDirectory(prefix="cube-bench-", dir=directory) as run_dir:
        measured = measure(Path(run_dir), sizes, rounds=rounds, patches=patches)
    console.print(table_of(measured))
    console.print(machine())
    print(json.dumps([asdict(each) for each in measured]))


def table_of(deployments: list[Deployment]) -> Table:
    """For people."""
    table = Table(title=f"donefile line to served, {VALUE_BYTES}-byte values, {SHARDS} shards")
    for column in ("pass", "rows", "served s", "target s", *_STEPS):
        table.add_column(column, justify="right")
    for each in deployments:
        steps = (f"{seconds:.2f}" for seconds in each.steps_s.values())
        times = (f"{each.served_s:.2f}", f"{each.target_s or ''}", *steps)
        table.add_row(each.what, f"{each.rows:,}", *times)
    return table


def measure(run_dir: Path, sizes: list[int], *, rounds: int, patches: int) -> list[Deployment]:
    """Deploys `rounds` bases of each size, one after the other, on one running site, and patches
    over the last of each size."""
    deployments: list[Deployment] = []
    with contextlib.ExitStack() as stack:
        http = stack.enter_context(httpx.Client(trust_env=False))
        servers = [stack.enter_context(_server(run_dir, shard)) for shard in range(SHARDS)]
        (run_dir / "donefile").mkdir()
        site = Site(run_dir, http, stack.enter_context(_daemon(run_dir, servers)), servers)
        number = 0
        for size in sizes:
            for _ in range(rounds):
                number += 1
                _write_pass(run_dir / str(number), size, seed=number)
                seconds = site.deploy("base.txt", number, number)
                deployments.append(Deployment("base", size, TARGETS_S.get(size), *seconds))
            base = number
            for _ in range(patches):
                number += 1
                _write_patch(run_dir / str(number), run_dir / str(base), seed=number)
                seconds = site.deploy("patch.txt", base, number)
                deployments.append(Deployment("patch", PATCH_ROWS, PATCH_TARGET_S, *seconds))
    return deployments


@dataclass(frozen=True)
class Site:
    """A running daemon and its servers, by their ports."""

    run_dir: Path
    http: httpx.Client
    daemon: int
    servers: list[int]

    def deploy(self, file: str, base: int, number: int) -> tuple[float, dict[str, float]]:
        """Announces a pass to an idle daemon; returns the seconds until it is served, and those of
        each step."""
        time.sleep(_IDLE_S)
        line = {"id": str(number), "key": str(base), "input": f"../{number}"}
        with (self.run_dir / "donefile" / file).open("a", encoding="utf-8") as donefile:
            donefile.write(json.dumps(line) + "\n")
        announced_s = time.time()
        for server in self.servers:
            _await_served(self.http, server, f"{base}_{number}")
        served_s = time.time() - announced_s
        version = f"{base}_{number}"
        return served_s, _steps(self.http, self.daemon, version, announced_s)


def _await_served(http: httpx.Client, server: int, version: str) -> None:
    url = f"http://127.0.0.1:{server}/ControlService/cmd"
    deadline = time.monotonic() + _SERVED_TIMEOUT_S
    while http.post(url, json={"cmd": "status"}).json()["cur_version"] != version:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{version} is not served after {_SERVED_TIMEOUT_S} s")
        time.sleep(_POLL_S)


def _steps(http: httpx.Client, daemon: int, version: str, announced_s: float) -> dict[str, float]:
    """Seconds of each step up to the switch, once the daemon has noted the last."""
    deadline = time.monotonic() + _READY_TIMEOUT_S
    times: dict[str, float] = {}
    while "done" not in times and time.monotonic() < deadline:
        history = http.get(f"http://127.0.0.1:{daemon}/history").json()
        times = next(each["reached_at_s"] for each in history if each["version"] == version)
        time.sleep(_POLL_S)
    steps, before_s = {}, announced_s
    for step, stage in _STEPS.items():
        steps[step], before_s = times[stage] - before_s, times[stage]
    return steps


def _write_pass(directory: Path, rows: int, *, seed: int) -> None:
    """Random keys, as hashed features are, in `PARTS` SequenceFiles with a manifest."""
    directory.mkdir()
    random = np.random.default_rng(seed)
    paths = [directory / f"part-{part:05}" for part in range(PARTS)]
    for path in paths:
        writer = SequenceFileWriter(str(path))
        left = rows // PARTS
        while left:
            count = min(left, _WRITE_ROWS)
            keys = random.integers(0, 1 << 64, count, dtype=np.uint64)
            writer.append(keys, random.random((count, VALUE_BYTES // 4), np.float32).view(np.uint8))
            left -= count
        writer.close()
    _write_manifest(directory, paths)


def _write_patch(directory: Path, base: Path, *, seed: int) -> None:
    """New rows for keys of the base and for new keys, and keys that go, in one SequenceFile."""
    directory.mkdir()
    random = np.random.default_rng(seed)
    known, _ = SequenceFileReader(str(base / "part-00000")).read(PATCH_ROWS // 2)
    keys = np.concatenate([known, random.integers(0, 1 << 64, PATCH_ROWS // 2, dtype=np.uint64)])
    deleted = random.random(PATCH_ROWS) < DELETED_SHARE
    offsets = np.zeros(PATCH_ROWS + 1, np.int64)
    np.cumsum(np.where(deleted, 0, VALUE_BYTES), out=offsets[1:])
    values = random.random(int(offsets[-1]) // 4, np.float32).view(np.uint8)
    path = directory / "part-00000"
    with SequenceFileWriter(str(path)) as writer:
        writer.append_bytes(keys, offsets, values)
    _write_manifest(directory, [path])


def _write_manifest(directory: Path, paths: list[Path]) -> None:
    files: list[dict[str, Any]] = [
        {"name": path.name, "size": path.stat().st_size, "crc32c": crc32c_file(str(path))}
        for path in paths
    ]
    (directory / "_manifest.json").write_text(json.dumps({"files": files}))


@contextlib.contextmanager
def _server(run_dir: Path, shard: int) -> Iterator[int]:
    arguments = ["--port=0", "--grpc_port=-1", f"--data_dir=data{shard}", f"--shard={shard}"]
    with _running("cube_server.main", arguments, run_dir) as port:
        yield port


@contextlib.contextmanager
def _daemon(run_dir: Path, servers: list[int]) -> Iterator[int]:
    nodes = [f"cube{shard}_0: 127.0.0.1:{port}:./x" for shard, port in enumerate(servers)]
    conf = [
        "[default]",
        f"dict_name: {DICT_NAME}",
        "mode: base_delta",
        "wget_port: 8098",
        f"donefile_address: {run_dir / 'donefile'}",
        f"output_address: {run_dir / 'output'}",
        f"tmp_address: {run_dir / 'tmp'}",
        f"shard_num: {len(servers)}",
        "[cube_agent]",
        *nodes,
    ]
    (run_dir / "transfer.conf").write_text("\n".join(conf) + "\n")
    arguments = ["--config=transfer.conf", "--port=0"]
    with _running("cube_transfer.main", arguments, run_dir) as port:
        yield port


@contextlib.contextmanager
def _running(module: str, arguments: list[str], run_dir: Path) -> Iterator[int]:
    """Runs a role until its ready line; yields its port."""
    with (run_dir / f"{module}.log").open("a", encoding="utf-8") as log:
        process = subprocess.Popen(  # noqa: S603  this package's own modules
            [sys.executable, "-m", module, *arguments],
            cwd=run_dir,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None  # noqa: S101  asked for as a pipe above
        ready = process.stdout.readline()
        if " ready: port=" not in ready:
            raise RuntimeError(f"{module}: {(run_dir / f'{module}.log').read_text()}")
        yield int(ready.split("port=")[1].split()[0])
    finally:
        process.terminate()
        process.wait(_READY_TIMEOUT_S)
        if process.stdout is not None:
            process.stdout.close()


if __name__ == "__main__":
    run(app)
