"""`cube down` and `cube restart`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from cube_cluster.identity import end_processes
from cube_cluster.processes_file import RoleRecord, read_processes, remove_processes
from cube_cluster.role_runner import request_restart
from cube_cluster.supervisor import STOP_TIMEOUT_S
from cube_core.errors import ClusterError

_POLL_INTERVAL_S = 0.1
# The supervisor ends its roles in two steps.
_SUPERVISOR_TIMEOUT_S = 2 * STOP_TIMEOUT_S + 10


def bring_down(run_dir: Path) -> list[str]:
    """Ends the supervisor and every role of `run_dir`, and nothing else; returns the names of what
    ran.

    Raises:
        ClusterError: processes.json cannot be read.
        PermissionError: a process belongs to another user.
    """
    record = read_processes(run_dir)
    if record is None:
        return []
    running = record.running()
    ended = []
    if record.has_supervisor:
        end_processes([record.supervisor], _SUPERVISOR_TIMEOUT_S)
        ended.append("the supervisor")
        # Read anew: it may have started a role meanwhile, and was killed if it hung.
        record = read_processes(run_dir) or record
    left = [identity for name in record.running() if (identity := record.roles[name].identity)]
    end_processes(left, STOP_TIMEOUT_S)
    remove_processes(run_dir)
    return [*running, *ended]


def restart(run_dir: Path, names: list[str], timeout_s: float) -> Iterator[str]:
    """Restarts roles one after another, each when the one before is ready; yields the name of each
    that is.

    Raises:
        ClusterError: there is no supervisor, or a role was not ready in time.
    """
    for name in names:
        record = read_processes(run_dir)
        if record is None:
            raise ClusterError(f"{run_dir}: nothing is up; start it with `cube up`")
        if not record.has_supervisor:
            problem = "the supervisor is gone; run `cube down`, then `cube up`"
            raise ClusterError(f"{run_dir}: {problem}")
        if name not in record.roles:
            raise ClusterError(f"{name} came to the cluster since `cube up`; bring it down and up")
        before = record.roles[name]
        request_restart(run_dir / name)
        if before.identity is not None:
            end_processes([before.identity], STOP_TIMEOUT_S)
        _wait_ready(run_dir, name, before, timeout_s)
        yield name


def _wait_ready(run_dir: Path, name: str, before: RoleRecord, timeout_s: float) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + timeout_s
    while True:
        record = read_processes(run_dir)
        if record is None:
            raise ClusterError(f"{run_dir}: was brought down meanwhile")
        role = record.roles[name]
        if role.state == "ready" and role.identity != before.identity:
            return
        if time.monotonic() > deadline:
            why = f"; it {role.last_exit}" if role.last_exit else ""
            raise ClusterError(f"{name} is not ready after {timeout_s:g} s{why}; see {role.log}")
        pause.wait(_POLL_INTERVAL_S)
