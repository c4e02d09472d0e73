"""Real processes of this package in tests: started, waited for, ended by pid."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.preloaded import ForkedProcess, start
from tests.waiting import wait_until

_STOP_TIMEOUT_S = 10.0


@dataclass
class Role:
    """A running process of the package; `ready_line` is its first line on stdout."""

    process: subprocess.Popen[str] | ForkedProcess
    log_path: Path
    stdout_lines: list[str] = field(default_factory=list)

    @property
    def ready_line(self) -> str:
        return next((line for line in self.stdout_lines if " ready: " in line), "")

    def port(self, name: str = "port") -> int:
        """A port named in the ready line, such as `grpc_port`."""
        match = re.search(rf"\b{name}=(\d+)", self.ready_line)
        if match is None:
            raise AssertionError(f"no {name} in {self.ready_line!r}")
        return int(match[1])

    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """Signals the process and returns its exit code; kills it after a deadline."""
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
            try:
                self.process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(_STOP_TIMEOUT_S)
        code = self.process.returncode
        assert code is not None
        return code


@contextlib.contextmanager
def running(
    module: str,
    arguments: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    ready_timeout_s: float = 20.0,
    preloaded: bool = False,
) -> Iterator[Role]:
    """Runs `python -m module arguments` in `cwd` until its ready line, and ends it at the end.

    Args:
        preloaded: fork it from a process that has done the imports, without `env`.
    """
    log_path = cwd / f"{module.split('.')[0]}-{len(list(cwd.glob('*.log')))}.log"
    reading, writing = os.pipe()
    process: subprocess.Popen[str] | ForkedProcess
    with log_path.open("w", encoding="utf-8") as log, os.fdopen(writing, "w") as stdout:
        if preloaded:
            process = start(module, arguments, cwd=cwd, stdout=writing, stderr=log.fileno())
        else:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=cwd,
                env=dict(env) if env is not None else None,
                stdout=stdout,
                stderr=log,
                text=True,
            )
    role = Role(process, log_path)
    lines = os.fdopen(reading, encoding="utf-8")
    reader = threading.Thread(target=lambda: role.stdout_lines.extend(lines), daemon=True)
    reader.start()
    try:
        wait_until(
            lambda: role.ready_line or process.poll() is not None,
            ready_timeout_s,
            f"{module} ready",
        )
        if not role.ready_line:
            raise AssertionError(f"{module} ended with {process.returncode}:\n{role.log()}")
        yield role
    finally:
        role.stop()
        reader.join(_STOP_TIMEOUT_S)
        lines.close()
