"""The service's processes: started, waited for, and ended by pid whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cube_core.errors import CubeError
from examples.criteo_ctr import interrupts

_POLL_INTERVAL_S = 0.02
_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_LINES = 15


class ProcessError(CubeError):
    """A process ended, or was not ready in time; the message has the end of its log."""


@dataclass
class Role:
    """One running process of the service."""

    name: str
    process: subprocess.Popen[bytes]
    log_path: Path

    def ready_line(self) -> str:
        """The line that says the process can serve; "" while there is none."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line for line in lines if " ready: " in line), "")

    def failure(self, problem: str) -> ProcessError:
        """An error with the end of the log in it."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        tail = "\n".join(f"  {line}" for line in lines[-_LOG_TAIL_LINES:])
        return ProcessError(f"{self.name} {problem}; the end of {self.log_path}:\n{tail}")


class ProcessGroup:
    """Starts roles in one directory and, with `stop`, ends every one of them."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._roles: list[Role] = []
        self._pause = threading.Event()

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Role:
        """Runs `python -m module arguments` in the run directory, its output in <name>.log."""
        log_path = self._run_dir / f"{name}.log"
        with interrupts.held(), log_path.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", module, *arguments],
                cwd=self._run_dir,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the demo alone; it ends the others in order.
                start_new_session=True,
            )
            self._roles.append(Role(name, process, log_path))
        return self._roles[-1]

    def wait_ready(self, role: Role, timeout_s: float) -> str:
        """Returns the role's ready line.

        Raises:
            ProcessError: the process ended, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not (line := role.ready_line()):
            if role.process.poll() is not None:
                raise role.failure(f"ended with exit code {role.process.returncode}")
            if time.monotonic() > deadline:
                raise role.failure(f"was not ready within {timeout_s:g} s")
            self._pause.wait(_POLL_INTERVAL_S)
        return line

    def check_alive(self) -> None:
        """Raises ProcessError when one of the roles has ended by itself."""
        for role in self._roles:
            if role.process.poll() is not None:
                raise role.failure(f"ended with exit code {role.process.returncode}")

    def stop(self) -> None:
        """SIGTERM to all, last started first; SIGKILL to what has not ended by the deadline."""
        with interrupts.held():
            self._stop_all()

    def _stop_all(self) -> None:
        roles, self._roles = self._roles[::-1], []
        for role in roles:
            if role.process.poll() is None:
                role.process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for role in roles:
            try:
                role.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                # With what it started itself: a role that hangs cannot end its own children.
                os.killpg(role.process.pid, signal.SIGKILL)
                role.process.wait()
