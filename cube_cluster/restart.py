"""`cube restart`: roles one after another, so that others of their kind can stand in."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import httpx

from cube_cluster.deployment import Deployment
from cube_cluster.identity import end_processes
from cube_cluster.processes_file import ProcessesRecord, RoleRecord, read_processes
from cube_cluster.role_http import RoleHttp
from cube_cluster.role_runner import request_restart
from cube_cluster.roles import Role
from cube_cluster.supervisor import STOP_TIMEOUT_S
from cube_core.errors import ClusterError

_POLL_INTERVAL_S = 0.1
_ASK_TIMEOUT_S = 2.0


def restart(deployment: Deployment, roles: Iterable[Role], timeout_s: float) -> Iterator[str]:
    """Restarts roles, each when the one before is ready; yields the name of each that is. One that
    served before, as `/ready` tells, is ready when it serves again.

    Raises:
        ClusterError: there is no supervisor, or a role was not ready in time.
        ConfError: a file of a token or a certificate cannot be used.
    """
    http, run_dir = RoleHttp(deployment.cluster), deployment.run_dir
    for role in roles:
        before = _record(run_dir, role.name).roles[role.name]
        served = _serves(http, role)
        request_restart(role.directory(run_dir))
        if before.identity is not None:
            end_processes([before.identity], STOP_TIMEOUT_S)
        deadline = time.monotonic() + timeout_s
        _wait_started(run_dir, role.name, before, deadline)
        if served:
            _wait_serving(http, role, deadline)
        yield role.name


def _record(run_dir: Path, name: str) -> ProcessesRecord:
    record = read_processes(run_dir)
    if record is None:
        raise ClusterError(f"{run_dir}: nothing is up; start it with `cube up`")
    if not record.has_supervisor:
        raise ClusterError(f"{run_dir}: the supervisor is gone; run `cube down`, then `cube up`")
    if name not in record.roles:
        raise ClusterError(f"{name} came to the cluster since `cube up`; bring it down and up")
    return record


def _wait_started(run_dir: Path, name: str, before: RoleRecord, deadline: float) -> None:
    pause = threading.Event()
    while True:
        role = _record(run_dir, name).roles[name]
        if role.state == "ready" and role.identity != before.identity:
            return
        if time.monotonic() > deadline:
            why = f"; it {role.last_exit}" if role.last_exit else ""
            raise ClusterError(f"{name} was not ready in time{why}; see {role.log}")
        pause.wait(_POLL_INTERVAL_S)


def _wait_serving(http: RoleHttp, role: Role, deadline: float) -> None:
    pause = threading.Event()
    while not _serves(http, role):
        if time.monotonic() > deadline:
            raise ClusterError(f"{role.name} runs again but does not serve; see `cube status`")
        pause.wait(_POLL_INTERVAL_S)


def _serves(http: RoleHttp, role: Role) -> bool:
    async def ask() -> bool:
        async with http.client(_ASK_TIMEOUT_S) as client:
            answer = await http.get(client, role, "/ready")
            return answer.status_code == httpx.codes.OK

    try:
        return asyncio.run(ask())
    except httpx.HTTPError:
        return False
