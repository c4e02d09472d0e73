"""`cube restart`: roles one after another, so that others of their kind can stand in."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from cube_cluster.deployment import Deployment
from cube_cluster.identity import Identity, end_processes
from cube_cluster.processes_file import running_record
from cube_cluster.role_http import RoleHttp
from cube_cluster.role_runner import request_restart
from cube_cluster.roles import Role
from cube_cluster.supervisor import STOP_TIMEOUT_S
from cube_core.errors import ClusterError

_POLL_INTERVAL_S = 0.1


def restart(deployment: Deployment, roles: Iterable[Role], timeout_s: float) -> Iterator[str]:
    """Restarts roles, each when the one before is ready; yields the name of each that is. One that
    served before, as `/ready` tells, is ready when it serves again.

    Raises:
        ClusterError: there is no supervisor, or a role was not ready in time.
        ConfError: a file of a token or a certificate cannot be used.
    """
    http, run_dir = RoleHttp(deployment.cluster), deployment.run_dir
    for role in roles:
        before = running_record(run_dir).roles[role.name].identity
        served = http.serves(role)
        request_restart(role.directory(run_dir))
        if before is not None:
            end_processes([before], STOP_TIMEOUT_S)
        deadline = time.monotonic() + timeout_s
        wait_started(run_dir, role.name, before, deadline)
        if served:
            _wait_serving(http, role, deadline)
        yield role.name


def wait_started(run_dir: Path, name: str, before: Identity | None, deadline: float) -> None:
    """Waits until a role is ready, as another process than `before`.

    Args:
        deadline: on the monotonic clock.

    Raises:
        ClusterError: it was not ready in time.
    """
    pause = threading.Event()
    while True:
        role = running_record(run_dir).roles[name]
        if role.state == "ready" and role.identity != before:
            return
        if time.monotonic() > deadline:
            why = f"; it {role.last_exit}" if role.last_exit else ""
            raise ClusterError(f"{name} was not ready in time{why}; see {role.log}")
        pause.wait(_POLL_INTERVAL_S)


def _wait_serving(http: RoleHttp, role: Role, deadline: float) -> None:
    pause = threading.Event()
    while not http.serves(role):
        if time.monotonic() > deadline:
            raise ClusterError(f"{role.name} runs again but does not serve; see `cube status`")
        pause.wait(_POLL_INTERVAL_S)
