"""One process of a role, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

from cube_cluster.identity import child_identity
from cube_cluster.roles import Role
from cube_core.errors import ClusterError

_POLL_INTERVAL_S = 0.05
_TAIL_LINES = 15
_TAIL_BYTES = 16 << 10
LOG_BYTES_MAX = 64 << 20
"""A log that is larger is put aside when its role starts."""


class Child:
    """Started by the constructor; belongs to the running event loop. Its output is appended to
    the log of its role, which begins anew when it is large."""

    def __init__(self, role: Role, run_dir: Path) -> None:
        self.role = role
        self.log_path = role.log_path(run_dir)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        _put_aside_when_large(self.log_path)
        with self.log_path.open("ab") as log:
            self._log_begin = log.tell()
            self._process = subprocess.Popen(  # noqa: S603
                role.command,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own: Ctrl-C is for the supervisor alone, which ends roles in order.
                start_new_session=True,
            )
        self.identity = child_identity(self._process.pid)
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._descriptor, self._on_exit)

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        # What it started and left behind would keep its ports. It is not reaped yet, so its pid
        # is still the name of its own group.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._exited.set_result(self._process.wait())

    @property
    def has_exited(self) -> bool:
        return self._exited.done()

    async def wait(self) -> str:
        """Waits for its end; returns how it ended, in words."""
        code = await asyncio.shield(self._exited)
        return (
            f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        )

    async def wait_ready(self, timeout_s: float | None) -> str:
        """Waits for its ready line, and returns it.

        Raises:
            ClusterError: it ended, or was not ready in time; with the end of its log.
        """
        deadline = None if timeout_s is None else self._loop.time() + timeout_s
        while not (line := self._ready_line()):
            if self.has_exited:
                raise self._error(await self.wait())
            if deadline is not None and self._loop.time() > deadline:
                raise self._error(f"was not ready within {timeout_s:g} s")
            await asyncio.sleep(_POLL_INTERVAL_S)
        return line

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL with all that it started when it has not ended in time."""
        if self.has_exited:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self.wait(), timeout_s)
        except asyncio.TimeoutError:
            # Not reaped yet, as above.
            os.killpg(self._process.pid, signal.SIGKILL)
            await self.wait()

    def _ready_line(self) -> str:
        with self.log_path.open("rb") as log:
            log.seek(self._log_begin)
            for line in log:
                if b" ready: " in line and line.endswith(b"\n"):
                    return line.decode(errors="replace").strip()
        return ""

    def _error(self, problem: str) -> ClusterError:
        with self.log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_begin, end - _TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        tail = "".join(f"\n  {line}" for line in lines)
        return ClusterError(f"{self.role.name} {problem}; the end of {self.log_path}:{tail}")


def _put_aside_when_large(path: Path) -> None:
    """One file of before is kept."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            path.replace(path.with_name(f"{path.name}.1"))
