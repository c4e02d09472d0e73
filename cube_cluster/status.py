"""`cube status`: how every role of a cluster is, by its process and by what it answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from cube_api.cli.status import ReplicaStatus, fleet_status
from cube_cluster.deployment import Deployment
from cube_cluster.layout import ShardServer, all_shard_servers
from cube_cluster.processes_file import ProcessesRecord, read_processes
from cube_cluster.role_http import RoleHttp
from cube_cluster.roles import Role, local_roles

# Between two looks at a server, from which its requests a second follow.
_INTERVAL_S = 0.3


@dataclass
class RoleStatus:
    """One role.

    Attributes:
        what: the dict and shard of a shard server, else "".
        is_here: whether its host is this machine.
        pid, uptime_s: of its process; None when it does not run here.
        version: what it serves; "" when it tells none.
        keys, requests_per_s: of a shard server.
        problem: why it does not do its work; "" when it does.
    """

    name: str
    what: str
    host: str
    ports: dict[str, int]
    is_here: bool
    pid: int | None = None
    uptime_s: float | None = None
    restart_count: int = 0
    version: str = ""
    keys: int | None = None
    requests_per_s: float | None = None
    problem: str = ""


def deployment_status(deployment: Deployment, timeout_s: float) -> list[RoleStatus]:
    """Asks every role of the cluster, those of other machines too.

    Args:
        timeout_s: of each question.

    Raises:
        ClusterError: processes.json cannot be read.
        ConfError: a file of a token or a certificate cannot be used.
    """
    record = read_processes(deployment.run_dir)
    roles = deployment.roles()
    here = {role.name for role in local_roles(roles)}
    servers = {server.name: server for server in all_shard_servers(deployment.cluster)}
    http = RoleHttp(deployment.cluster)
    replicas = _replicas(deployment, timeout_s, http.token)
    answers = asyncio.run(_ask_all(http, roles, timeout_s))
    found = []
    for role in roles:
        status = RoleStatus(role.name, "", role.host, role.ports, role.name in here)
        _add_process(status, record)
        _add_answer(status, role, answers[role.name])
        if server := servers.get(role.name):
            _add_replica(status, server, replicas)
        found.append(status)
    return [*found, *_left(deployment, record, {role.name for role in roles})]


def _left(
    deployment: Deployment, record: ProcessesRecord | None, known: Collection[str]
) -> Iterator[RoleStatus]:
    """Roles that run here and are not in the file any more."""
    for name, role in record.roles.items() if record else ():
        if name not in known:
            status = RoleStatus(name, "", role.host, role.ports, True)
            _add_process(status, record)
            gone = f"is not in {deployment.path} any more; `cube apply --end` ends it"
            status.problem = status.problem or gone
            yield status


def _replicas(
    deployment: Deployment, timeout_s: float, token: str
) -> dict[tuple[str, int], ReplicaStatus]:
    """What `cube-cli status` tells, by host and port."""
    dicts = deployment.dict_confs()
    return {
        (each.endpoint.host, each.endpoint.port): each
        for each in fleet_status(dicts, interval_s=_INTERVAL_S, timeout_s=timeout_s, token=token)
    }


def _add_process(status: RoleStatus, record: ProcessesRecord | None) -> None:
    role = record.roles.get(status.name) if record else None
    if record is None or role is None:
        status.problem = "is not up here" if status.is_here else ""
        return
    status.restart_count = role.restart_count
    if record.is_running(status.name) and role.identity:
        status.pid = role.identity.pid
        status.uptime_s = max(0.0, time.time() - role.started_at_s)
        if role.state != "ready":
            status.problem = role.state
    else:
        status.problem = f"{role.state}: {role.last_exit}" if role.last_exit else "has ended"


def _add_replica(
    status: RoleStatus, server: ShardServer, replicas: Mapping[tuple[str, int], ReplicaStatus]
) -> None:
    retiring = ", retiring" if server.is_retiring else ""
    status.what = f"{server.dict_name} shard {server.shard}{retiring}"
    replica = replicas[server.host, server.port]
    status.version = replica.version
    if replica.problem:
        status.problem = status.problem or replica.problem
    else:
        status.keys, status.requests_per_s = replica.keys, replica.requests_per_s


@dataclass(frozen=True)
class _Answer:
    """What `/status` and `/ready` of a role said; `problem` when nothing that can be used."""

    status: Mapping[str, Any]
    problem: str


async def _ask_all(http: RoleHttp, roles: list[Role], timeout_s: float) -> dict[str, _Answer]:
    async with http.client(timeout_s) as client:
        answers = await asyncio.gather(*(_ask(http, client, role) for role in roles))
    return {role.name: answer for role, answer in zip(roles, answers, strict=True)}


async def _ask(http: RoleHttp, client: httpx.AsyncClient, role: Role) -> _Answer:
    # The daemon has no readiness of its own.
    readiness = "/health" if role.kind == "cube_transfer" else "/ready"
    try:
        status = (await http.get(client, role, "/status")).raise_for_status().json()
        ready = await http.get(client, role, readiness)
    except httpx.HTTPError as error:
        return _Answer({}, f"unreachable: {str(error) or type(error).__name__}")
    except ValueError as error:
        return _Answer({}, f"its /status is no JSON: {error}")
    if not isinstance(status, dict):
        return _Answer({}, "its /status is no JSON object")
    return _Answer(status, "" if ready.status_code == httpx.codes.OK else ready.text.strip())


def _add_answer(status: RoleStatus, role: Role, answer: _Answer) -> None:
    status.problem = status.problem or answer.problem
    if role.kind == "cube_transfer":
        status.version = str(answer.status.get("serving") or "")
        places = (answer.status, answer.status.get("deploying"), answer.status.get("donefile"))
        errors = [str(each["error"]) for each in places if each and each.get("error")]
        newest: Mapping[str, Any] = next(iter(answer.status.get("passes") or ()), {})
        if newest.get("stage") == "failed" and not answer.status.get("deploying"):
            errors.insert(0, f"{newest.get('id')} failed: {newest.get('error')}")
        status.problem = status.problem or "; ".join(errors)
    elif role.kind == "ctr_serving":
        status.version = str((answer.status.get("model") or {}).get("version", ""))
