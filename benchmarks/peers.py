"""The servers that are measured: ours, the floor, Redis, memcached; each a process of its own."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Server:
    """A running server: where it listens and whose CPU it burns."""

    name: str
    protocol: str
    port: int
    pid: int

    def cpu_s(self) -> float:
        """CPU seconds so far, user and system, of the process with all its threads and of its
        worker processes."""
        threads = Path(f"/proc/{self.pid}/task").glob("*/children")
        children = [pid for each in threads for pid in each.read_text().split()]
        # The clock id of another process's CPU clock, as clock_getcpuclockid(3) makes it.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in (self.pid, *map(int, children)))


def missing_programs() -> list[str]:
    """Programs of peers that are not installed here."""
    return [name for name in ("redis-server", "memcached") if shutil.which(name) is None]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def cube_server(table: Path, version: str, run_dir: Path, *flags: str) -> Iterator[Server]:
    """The shard server of this package, serving one table file."""
    data_dir = run_dir / "data"
    target = data_dir / version / table.name
    target.parent.mkdir(parents=True)
    target.symlink_to(table)
    (data_dir / "VERSION").write_text(version)
    command = [
        sys.executable, "-m", "cube_server.main",
        "--port=0", "--grpc_port=0", f"--data_dir={data_dir}",
        f"--dict_name={table.name.partition('_part')[0]}", *flags,
    ]  # fmt: skip
    with _process(command, run_dir / "cube_server.log", ready=" ready: ") as (process, line):
        match = re.search(r"\bport=(\d+)", line)
        if match is None:
            raise RuntimeError(f"no port in the ready line {line!r}")
        yield Server("cube-server", "prpc", int(match[1]), process.pid)


@contextlib.contextmanager
def ctr_server(run_dir: Path, *flags: str) -> Iterator[Server]:
    """The predictor of this package, by the configuration in `run_dir`."""
    command = [
        sys.executable, "-m", "ctr_serving.main", "--port=0", "--grpc_port=0",
        f"--conf={run_dir}/model_toolkit.prototxt", f"--cube_conf={run_dir}/ctr_cube.conf",
        "--reload_interval_ms=50", "--queue_timeout_ms=60000", *flags,
    ]  # fmt: skip
    with _process(command, run_dir / "ctr_serving.log", ready=" ready: ") as (process, line):
        match = re.search(r"\bport=(\d+)", line)
        if match is None:
            raise RuntimeError(f"no port in the ready line {line!r}")
        yield Server("ctr-serving", "prpc", int(match[1]), process.pid)


@contextlib.contextmanager
def floor_server(program: Path, table: Path, run_dir: Path) -> Iterator[Server]:
    """A plain C++ epoll loop around the same kernel."""
    port = free_port()
    command = [str(program), str(port), str(table)]
    with _process(command, run_dir / "floor.log", ready="ready") as (process, _):
        yield Server("C++ epoll", "prpc", port, process.pid)


@contextlib.contextmanager
def redis_server(
    keys: NDArray[np.uint64], values: NDArray[np.uint8], run_dir: Path
) -> Iterator[Server]:
    """Redis without persistence, loaded with decimal keys and raw values."""
    with empty_redis_server(run_dir) as server:
        load = (server.port, keys, values, _redis_set)
        _load(*load, last_reply=b"+PONG\r\n", end=b"PING\r\n")
        yield server


@contextlib.contextmanager
def empty_redis_server(run_dir: Path) -> Iterator[Server]:
    """Redis without persistence and without keys."""
    port = free_port()
    command = [
        "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--daemonize", "no", "--dir", str(run_dir),
    ]  # fmt: skip
    with _process(command, run_dir / "redis.log", ready="Ready to accept") as (process, _):
        yield Server("Redis MGET", "resp", port, process.pid)


@contextlib.contextmanager
def memcached_server(
    keys: NDArray[np.uint64], values: NDArray[np.uint8], run_dir: Path
) -> Iterator[Server]:
    """memcached with one thread, loaded with decimal keys and raw values."""
    port = free_port()
    command = [
        "memcached", "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-t", "1", "-m", "1024",
    ]  # fmt: skip
    with _process(command, run_dir / "memcached.log", ready="") as (process, _):
        _load(port, keys, values, _memcached_set, last_reply=b"VERSION", end=b"version\r\n")
        yield Server("memcached get", "memcached", port, process.pid)


def _redis_set(key: int, value: bytes) -> bytes:
    text = b"%d" % key
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(text), text, len(value), value)


def _memcached_set(key: int, value: bytes) -> bytes:
    return b"set %d 0 0 %d noreply\r\n%b\r\n" % (key, len(value), value)


def _load(
    port: int,
    keys: NDArray[np.uint64],
    values: NDArray[np.uint8],
    encode: Callable[[int, bytes], bytes],
    *,
    last_reply: bytes,
    end: bytes,
) -> None:
    """Sends every pair, batch by batch, and reads until the reply to `end` comes after each."""
    with _connect(port) as connection:
        for start in range(0, len(keys), 1000):
            batch = zip(keys[start : start + 1000], values[start : start + 1000], strict=True)
            connection.sendall(b"".join(encode(int(k), v.tobytes()) for k, v in batch) + end)
            received = b""
            while last_reply not in received:
                chunk = connection.recv(1 << 16)
                if not chunk:
                    raise RuntimeError(f"the server on port {port} closed the connection")
                received = received[-len(last_reply) :] + chunk


def _connect(port: int) -> socket.socket:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


@contextlib.contextmanager
def ready_process(command: Sequence[str], log_path: Path) -> Iterator[str]:
    """Runs a program of this repository until the block ends; gives its ready line."""
    with _process(command, log_path, ready=" ready: ") as (_, line):
        yield line


@contextlib.contextmanager
def _process(
    command: Sequence[str], log_path: Path, *, ready: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Runs a server until the block ends; enters it with the first line that contains `ready`."""
    with log_path.open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)  # noqa: S603
    try:
        line = ""
        while ready and ready not in line:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise RuntimeError(f"{command[0]} ended: {log_path.read_text()}")
        yield process, line
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
