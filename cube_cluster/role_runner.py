"""Keeps one role running: started, waited for, and started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from cube_cluster.child import Child
from cube_cluster.ports import holder_of, is_taken
from cube_cluster.processes_file import RoleRecord
from cube_cluster.roles import Role
from cube_core.errors import ClusterError

log = logging.getLogger(__name__)

BACKOFF_MIN_S = 0.5
BACKOFF_MAX_S = 30.0
STABLE_S = 60.0
"""A role that ran so long is started again after BACKOFF_MIN_S; else the wait doubles."""

_REQUEST_NAME = "restart"
_POLL_INTERVAL_S = 0.1


def request_restart(role_dir: Path) -> None:
    """Asks for the next end of a role to count as wanted, and a wait for its start as over."""
    (role_dir / _REQUEST_NAME).touch()


def taken_port(role: Role) -> str:
    """Which port of a role is taken and by whom; "" when all are free."""
    for name, port in role.ports.items():
        if is_taken(role.host, port):
            return f"{name} {port} of {role.name} is taken by {holder_of(port)}"
    return ""


class RoleRunner:
    """One role. `record` is kept as it is; `on_change` is called after each change of it."""

    def __init__(self, role: Role, run_dir: Path, on_change: Callable[[], None]) -> None:
        self.role = role
        self.record = RoleRecord(
            kind=role.kind,
            host=role.host,
            ports=role.ports,
            command=[*role.command],
            log=str(role.log_path(run_dir)),
            fixed=role.fixed,
        )
        self._run_dir = run_dir
        self._request = role.directory(run_dir) / _REQUEST_NAME
        self._on_change = on_change
        self._child: Child | None = None
        self._failures = 0

    async def start(self, timeout_s: float) -> None:
        """Starts the role for the first time.

        Raises:
            ClusterError: it ended, or was not ready in time; with the end of its log.
        """
        self._request.unlink(missing_ok=True)
        await self._spawn().wait_ready(timeout_s)
        self._note(state="ready")

    async def keep(self) -> None:
        """Starts the role again whenever it ends, until cancelled."""
        while True:
            if self._child is not None:
                ended = await self._child.wait()
                self._child = None
                if time.time() - self.record.started_at_s >= STABLE_S:
                    self._failures = 0
                await self._wait_for_turn(ended)
            elif problem := taken_port(self.role):
                await self._wait_for_turn(problem)
            else:
                await self._start_again()

    async def stop(self, timeout_s: float) -> None:
        """Ends the role's process, if there is one."""
        if self._child is not None:
            await self._child.stop(timeout_s)
            self._note(state="ended", identity=None)

    async def _start_again(self) -> None:
        try:
            await self._spawn().wait_ready(None)
        except ClusterError:
            return  # It ended; why stands in its log, and the next turn tells that it did.
        except OSError as error:
            # No more processes or files, or Python is being installed anew.
            if self._child is None:
                await self._wait_for_turn(f"cannot be started: {error}")
            return
        log.info("%s is ready again", self.role.name)
        self._note(state="ready")

    def _spawn(self) -> Child:
        # Taken before it reads its files, which are compared with this.
        started_at_s = time.time()
        self._child = Child(self.role, self._run_dir)
        self._note(state="starting", identity=self._child.identity, started_at_s=started_at_s)
        return self._child

    async def _wait_for_turn(self, problem: str) -> None:
        if self._is_requested():
            self._failures = 0
            self._note(state="waiting", identity=None, last_exit=f"{problem}, for a restart")
            return
        wait_s = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        log.error("%s: %s; it is started again in %g s", self.role.name, problem, wait_s)
        restarts = self.record.restart_count + 1
        self._note(state="waiting", identity=None, last_exit=problem, restart_count=restarts)
        for _ in range(round(wait_s / _POLL_INTERVAL_S)):
            if self._is_requested():
                return
            await asyncio.sleep(_POLL_INTERVAL_S)

    def _is_requested(self) -> bool:
        """Whether a restart was asked for; the request is taken by that."""
        try:
            self._request.unlink()
        except FileNotFoundError:
            return False
        return True

    def _note(self, **changes: object) -> None:
        self.record = self.record.model_copy(update=changes)
        self._on_change()
