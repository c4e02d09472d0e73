"""`cube apply`: brings a deployment that is up to what cluster.yml says by now."""

from __future__ import annotations

import contextlib
import fcntl
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from cube_cluster.clients_file import moved_dicts
from cube_cluster.conf_files import CUBE_CONF
from cube_cluster.deployment import Deployment
from cube_cluster.layout import all_shard_servers, shard_servers
from cube_cluster.processes_file import ProcessesRecord, running_record
from cube_cluster.restart import restart, wait_started
from cube_cluster.role_http import RoleHttp
from cube_cluster.role_runner import taken_port
from cube_cluster.roles import Role
from cube_cluster.roles_request import RolesRequest, request_roles
from cube_cluster.supervisor import STOP_TIMEOUT_S
from cube_cluster.write_files import write_files
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.errors import ClusterError

_POLL_INTERVAL_S = 0.1
_LOCK_NAME = "apply.lock"
# Nobody is to ask a server of an older release for what it does not know.
_RESTART_ORDER = ("cube_server", "ctr_serving", "cube_transfer")


def apply(deployment: Deployment, timeout_s: float, *, end: bool) -> Iterator[str]:
    """Writes the files, starts the roles that are new, then restarts those that read what has
    changed, one after another; yields what was done, and what is left to do.

    Args:
        timeout_s: for a role to be ready.
        end: also end the roles that are not in the file any more.

    Raises:
        ClusterError: there is no supervisor, a role was not ready in time, or a running one is to
            have what it cannot have while it runs; nothing is changed then.
        ConfError: a file in the way was not written by `cube`.
    """
    run_dir = deployment.run_dir
    with _alone(run_dir):
        record = running_record(run_dir)
        roles = deployment.local_roles()
        new = [role for role in roles if role.name not in record.roles]
        _require_startable(deployment, new)
        yield from write_conf(deployment, record)
        yield from _start(run_dir, new, timeout_s)
        yield from _restart_changed(deployment, [r for r in roles if r not in new], timeout_s)
        left = [name for name in record.roles if name not in {role.name for role in roles}]
        yield from _end(deployment, left) if end else _left(deployment, left)


def restart_with_files(
    deployment: Deployment, roles: Sequence[Role], timeout_s: float
) -> Iterator[str]:
    """`cube restart`: writes the files, and restarts the roles one after another; yields what was
    done.

    Raises:
        ClusterError, ConfError: as `apply`, or a role was not started yet.
    """
    with _alone(deployment.run_dir):
        record = running_record(deployment.run_dir)
        for role in deployment.local_roles():
            if role.name not in record.roles:
                problem = "came to the cluster since `cube up`; `cube apply` starts it"
                raise ClusterError(f"{role.name} {problem}")
        yield from write_conf(deployment, record)
        for name in restart(deployment, roles, timeout_s):
            yield f"{name} is ready again"


def write_conf(deployment: Deployment, record: ProcessesRecord) -> Iterator[str]:
    """Writes the files of all roles, with the servers in cube.conf as they are until all of the new
    ones serve; yields the dicts whose clients stay for now.

    Raises:
        ClusterError: a running role is to have what it cannot have while it runs.
    """
    _require_same_places(deployment, record)
    directory = deployment.conf_dir
    wanted = deployment.files(directory, kept=())
    moved = moved_dicts(wanted[CUBE_CONF], directory / CUBE_CONF)
    waiting = [name for name in moved if not _all_serve(deployment, name)]
    write_files(directory, deployment.files(directory, kept=waiting))
    for name in waiting:
        yield (
            f"{directory / CUBE_CONF}: {name} keeps the servers it has until all of the new ones "
            "serve; the daemon changes it then, or another `cube apply`"
        )


def _all_serve(deployment: Deployment, dict_name: str) -> bool:
    http = RoleHttp(deployment.cluster)
    names = {each.name for each in shard_servers(deployment.cluster) if each.dict_name == dict_name}
    return all(http.serves(role) for role in deployment.roles() if role.name in names)


def _require_same_places(deployment: Deployment, record: ProcessesRecord) -> None:
    for role in deployment.local_roles():
        running = record.roles[role.name].fixed if role.name in record.roles else {}
        for name, value in role.fixed.items():
            if running.get(name, value) != value:
                hint = "`cube down` and `cube up` change it"
                if role.kind == "cube_server":
                    hint = f"give the new servers numbers of their own (first_server), or {hint}"
                raise ClusterError(
                    f"{role.name}: {name} is {running[name]} and cannot become {value} while it "
                    f"runs, as {deployment.path} says; {hint}"
                )


def _require_startable(deployment: Deployment, new: Sequence[Role]) -> None:
    directories = {each.name: each.data_dir for each in all_shard_servers(deployment.cluster)}
    for role in new:
        if problem := taken_port(role):
            raise ClusterError(problem)
        directory = Path(directories.get(role.name, ""))
        if role.name in directories and directory.is_dir() and any(directory.iterdir()):
            raise ClusterError(
                f"{role.name}: {directory} holds what another server kept; remove it, or give the "
                "new servers other numbers (first_server)"
            )


def _start(run_dir: Path, new: Sequence[Role], timeout_s: float) -> Iterator[str]:
    if not new:
        return
    request_roles(run_dir, RolesRequest(start=[*new]))
    deadline = time.monotonic() + timeout_s
    for role in new:
        problem = f"the supervisor does not start {role.name}; it may be of an older release"
        _wait_until_run(run_dir, role.name, True, problem, deadline)
        wait_started(run_dir, role.name, None, deadline)
        yield f"{role.name} is ready"


def _restart_changed(
    deployment: Deployment, roles: Sequence[Role], timeout_s: float
) -> Iterator[str]:
    started_at_s = {
        name: role.started_at_s for name, role in running_record(deployment.run_dir).roles.items()
    }
    changed = [
        role
        for kind in _RESTART_ORDER
        for role in roles
        if role.kind == kind
        and any(file.stat().st_mtime >= started_at_s[role.name] for file in role.files)
    ]
    for name in restart(deployment, changed, timeout_s):
        yield f"{name} is ready again, with what has changed"


def _end(deployment: Deployment, names: Sequence[str]) -> Iterator[str]:
    if not names:
        return
    run_dir = deployment.run_dir
    _require_unnamed(deployment, names)
    request_roles(run_dir, RolesRequest(end=[*names]))
    deadline = time.monotonic() + STOP_TIMEOUT_S + 10
    for name in names:
        _wait_until_run(run_dir, name, False, f"the supervisor does not end {name}", deadline)
        yield f"{name} is ended"


def _require_unnamed(deployment: Deployment, names: Sequence[str]) -> None:
    """Clients are still sent to a server that cube.conf names."""
    path = deployment.conf_dir / CUBE_CONF
    dicts = read_cube_conf(path).values()
    named = {endpoint for conf in dicts for replicas in conf.replicas() for endpoint in replicas}
    roles = running_record(deployment.run_dir).roles
    for name in names:
        if (roles[name].host, roles[name].ports["port"]) in named:
            raise ClusterError(
                f"{name}: {path} still sends clients there, since not all of the new servers "
                "serve; nothing is ended"
            )


def _left(deployment: Deployment, names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"{name} is not in {deployment.path} any more; `cube apply --end` ends it"


def _wait_until_run(run_dir: Path, name: str, is_run: bool, problem: str, deadline: float) -> None:
    pause = threading.Event()
    while (name in running_record(run_dir).roles) is not is_run:
        if time.monotonic() > deadline:
            raise ClusterError(f"{problem}; see `cube logs cube`")
        pause.wait(_POLL_INTERVAL_S)


@contextlib.contextmanager
def _alone(run_dir: Path) -> Iterator[None]:
    """Two at once could end both replicas of a shard."""
    running_record(run_dir)
    with (run_dir / _LOCK_NAME).open("a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"{run_dir}: another `cube apply` or `cube restart` runs") from None
        yield
