"""What callers notice of a new version: a large table loaded, and versions switched, under load."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.peers import Server, cube_server
from cube_core import _native

KEY_COUNT = 1_000_000
VALUE_BYTES = 40
_RATE = 2000
_KEYS_PER_REQUEST = 100
_REST_S = 3.0
_SWITCHES = 20
_SWITCH_PAUSE_S = 0.1
_SWITCHING_S = 2 * _SWITCHES * _SWITCH_PAUSE_S
_ROUNDS = 5


@dataclass(frozen=True)
class SwitchFigures:
    """Latencies are of an open-loop load, counted from when a request was due.

    Attributes:
        load_s: from the command that loads the large table to the answer: read, verified, ready.
        *_load: while the large table is loaded.
        *_rest, *_switch: while nothing happens, and while versions are switched back and forth, in
            turns; a p99 is the median of its turns'.
    """

    large_keys: int
    workers: int
    load_s: float
    p99_us_rest: float
    max_us_rest: float
    p99_us_load: float
    max_us_load: float
    p99_us_switch: float
    max_us_switch: float

    @property
    def switch_ratio(self) -> float:
        return self.p99_us_switch / self.p99_us_rest


def measure(programs: Path, run_dir: Path, *, large_keys: int, workers: int = 1) -> SwitchFigures:
    """Serves 1 M keys, loads `large_keys` beside them, and switches between the two.

    Args:
        programs: directory of the built `load`.
    """
    directory = run_dir / f"switching_{workers}"
    directory.mkdir()
    small = directory / "bench_part0.table"
    _write(small, "1_1", KEY_COUNT)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(cube_server(small, "1_1", directory, f"--workers={workers}"))
        large = directory / "data" / "2_2" / small.name
        large.parent.mkdir()
        _write(large, "2_2", large_keys)
        load = programs / "load"
        # One connection, and a client that takes next to nothing: it shares the cores.
        commands = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        stack.callback(commands.close)
        _command(commands, "status", "")  # HTTP, which commands come by, is there from now on
        _under_load(load, server, _REST_S, lambda: None)  # warms both ends
        elapsed_s: list[float] = []
        loading = _under_load(
            load, server, _REST_S, lambda: elapsed_s.append(_timed(commands, "bg_load_base"))
        )
        resting, switching = [], []
        for _ in range(_ROUNDS):
            resting.append(_under_load(load, server, _SWITCHING_S, lambda: None))
            switching.append(
                _under_load(load, server, _SWITCHING_S, lambda: _switch_often(commands))
            )
    return SwitchFigures(
        large_keys=large_keys,
        workers=workers,
        load_s=elapsed_s[0],
        p99_us_rest=statistics.median(each["p99_us"] for each in resting),
        max_us_rest=max(each["max_us"] for each in resting),
        p99_us_load=loading["p99_us"],
        max_us_load=loading["max_us"],
        p99_us_switch=statistics.median(each["p99_us"] for each in switching),
        max_us_switch=max(each["max_us"] for each in switching),
    )


@dataclass(frozen=True)
class WorkerFigures:
    """A closed loop of two load generators, 650 keys a request; medians of the rounds.

    Attributes:
        requests_per_s: as the load generators saw it. They share the cores with the server.
        requests_per_cpu_s: by the CPU time of the server alone, all its processes.
    """

    workers: int
    requests_per_s: float
    requests_per_cpu_s: float


def throughput(
    programs: Path, run_dir: Path, *, workers: tuple[int, ...], rounds: int
) -> list[WorkerFigures]:
    """Servers of so many workers each in turn, round by round."""
    seen: dict[int, list[tuple[float, float]]] = {each: [] for each in workers}
    with contextlib.ExitStack() as stack:
        servers = {}
        for each in workers:
            directory = run_dir / f"throughput_{each}"
            directory.mkdir()
            table = directory / "bench_part0.table"
            _write(table, "1_1", KEY_COUNT)
            flag = f"--workers={each}"
            servers[each] = stack.enter_context(cube_server(table, "1_1", directory, flag))
        for turn in range(rounds + 1):
            for each, server in servers.items():
                figures = _throughput(programs / "load", server)
                if turn:  # the first round warms both ends
                    seen[each].append(figures)
    return [
        WorkerFigures(each, *(statistics.median(column) for column in zip(*rows, strict=True)))
        for each, rows in seen.items()
    ]


def _throughput(load: Path, server: Server) -> tuple[float, float]:
    requests = 20_000
    before_s = server.cpu_s()
    with (
        _load(load, server, requests, 650, "--connections=16") as first,
        _load(load, server, requests, 650, "--connections=16") as second,
    ):
        reports = [_report(each) for each in (first, second)]
    per_s = sum(report["requests_per_s"] for report in reports)
    return per_s, 2 * requests / (server.cpu_s() - before_s)


def _write(path: Path, version: str, key_count: int) -> None:
    keys = np.arange(key_count, dtype=np.uint64)
    values = np.zeros((key_count, VALUE_BYTES), dtype=np.uint8)
    _native.write_table(
        str(path), keys, values, dict_name="bench", version=version, shard=0, shard_num=1
    )


def _under_load(
    load: Path, server: Server, seconds: float, act: Callable[[], object]
) -> dict[str, float]:
    requests = int(_RATE * seconds)
    with _load(load, server, requests, _KEYS_PER_REQUEST, f"--rate={_RATE}") as process:
        time.sleep(seconds / 10)
        act()
        return _report(process)


@contextlib.contextmanager
def _load(
    load: Path, server: Server, requests: int, keys: int, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    command = [
        str(load), "--protocol=prpc", f"--port={server.port}", f"--keys={keys}",
        f"--key_space={KEY_COUNT}", f"--requests={requests}", *arguments,
    ]  # fmt: skip
    process = subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _report(process: subprocess.Popen[str]) -> dict[str, float]:
    output, problem = process.communicate(timeout=120)
    if process.returncode:
        raise RuntimeError(problem.strip())
    report: dict[str, float] = json.loads(output)
    return report


def _timed(commands: http.client.HTTPConnection, command: str) -> float:
    begin = time.perf_counter()
    _command(commands, command, "2_2")
    return time.perf_counter() - begin


def _switch_often(commands: http.client.HTTPConnection) -> None:
    for turn in range(_SWITCHES):
        _command(commands, "enable", "2_2" if turn % 2 == 0 else "1_1")
        time.sleep(_SWITCH_PAUSE_S)


def _command(commands: http.client.HTTPConnection, command: str, version: str) -> None:
    body = json.dumps({"cmd": command, "version": version})
    commands.request("POST", "/ControlService/cmd", body)
    answer = commands.getresponse()
    text = answer.read()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{command} {version}: HTTP {answer.status}: {text.decode()}")
