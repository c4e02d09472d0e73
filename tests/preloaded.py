"""Processes of this package forked from one that has imported what they need: to start one costs
some milliseconds, where an interpreter with its imports takes half a second of the machine.

The forked processes are children of the test's own process, as others are.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

# What the roles import, but for their main modules, which each process runs as its own.
_MODULES = ("cube_server.server", "cube_server.app", "cube_transfer.server", "httpx")
_ORDER_BYTES_MAX = 65_536
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION = 0x20080522
_POLL_INTERVAL_S = 0.02


class ForkedProcess:
    """The part of `subprocess.Popen` that tests need."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        with self._lock:
            if self.returncode is None:
                ended, status = os.waitpid(self.pid, os.WNOHANG)
                if ended:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = threading.Event()
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            pause.wait(_POLL_INTERVAL_S)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def start(
    module: str, arguments: Sequence[str], *, cwd: Path, stdout: int, stderr: int
) -> ForkedProcess:
    """As `python -m module arguments` in `cwd`; `stdout` and `stderr` are descriptors."""
    order = {"argv": [module, *arguments], "cwd": str(cwd), "env": dict(os.environ)}
    parent = _parent()
    socket.send_fds(parent, [json.dumps(order).encode()], [stdout, stderr])
    pid = int(parent.recv(_ORDER_BYTES_MAX))
    return ForkedProcess(pid)


@lru_cache(maxsize=1)
def _parent() -> socket.socket:
    """Starts the process that forks; it ends when this one does."""
    # A forked process whose parent is gone becomes ours, so that we can wait for it.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        number = theirs.fileno()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded", str(number)], pass_fds=[number]
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _fork_for_ever(orders: socket.socket) -> None:
    for module in _MODULES:
        importlib.import_module(module)
    gc.freeze()
    while True:
        order, descriptors, _, _ = socket.recv_fds(orders, _ORDER_BYTES_MAX, 2)
        if not order:
            return
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                orders.close()
                _become(json.loads(order), *descriptors)
                return
            orders.send(str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _give_up_privileges() -> None:
    """Permissions of files hold for the process, as where it does not run as root."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset(header, nothing)


def _become(order: dict[str, Any], stdout: int, stderr: int) -> None:
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    _give_up_privileges()
    sys.argv = order["argv"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _fork_for_ever(socket.socket(fileno=int(sys.argv[1])))
