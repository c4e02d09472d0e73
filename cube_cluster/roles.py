"""The roles that `cube up` runs on this machine, and their commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cube_cluster.cluster import Cluster
from cube_cluster.layout import ctr_servers, shard_servers, transfers
from cube_cluster.ports import is_local
from cube_core.errors import ClusterError

KINDS = ("cube_server", "cube_transfer", "ctr_serving")


@dataclass(frozen=True)
class Role:
    """One process to be run.

    Attributes:
        name: `<kind>_<i>`, numbered over the whole cluster, also where other machines run some.
        ports: those it listens on, by the name of their flag.
    """

    name: str
    kind: str
    host: str
    ports: dict[str, int]
    command: tuple[str, ...]

    def directory(self, run_dir: Path) -> Path:
        return run_dir / self.name

    def log_path(self, run_dir: Path) -> Path:
        return self.directory(run_dir) / f"{self.name}.log"


def all_roles(cluster: Cluster, conf_dir: Path) -> list[Role]:
    """Every role of the cluster, started from the files in `conf_dir`, in the order to start."""
    roles = []
    for server in shard_servers(cluster):
        ports = {"port": server.port, "grpc_port": server.grpc_port}
        if server.grpc_port < 0:
            del ports["grpc_port"]
        command = _command("cube_server", conf_dir / "gflags.conf", _own(conf_dir, server.name))
        roles.append(Role(server.name, "cube_server", server.host, ports, command))
    for transfer in transfers(cluster):
        command = _command("cube_transfer", _own(conf_dir, transfer.name))
        ports = {"port": transfer.port}
        roles.append(Role(transfer.name, "cube_transfer", transfer.host, ports, command))
    for ctr in ctr_servers(cluster):
        command = _command("ctr_serving", _own(conf_dir, ctr.name))
        ports = {"port": ctr.port, "grpc_port": ctr.grpc_port}
        roles.append(Role(ctr.name, "ctr_serving", ctr.host, ports, command))
    return roles


def local_roles(roles: Iterable[Role]) -> list[Role]:
    """Those whose host is this machine."""
    roles = list(roles)
    local = {host for host in {role.host for role in roles} if is_local(host)}
    return [role for role in roles if role.host in local]


def named(roles: Iterable[Role], name: str) -> list[Role]:
    """The roles that a name stands for: one, or all of a kind. `-` may stand for `_`.

    Raises:
        ClusterError: none is called so.
    """
    roles = list(roles)
    wanted = name.replace("-", "_")
    found = [role for role in roles if wanted in (role.name, role.kind)]
    if not found:
        known = ", ".join(role.name for role in roles)
        raise ClusterError(f"no role {name!r} here; there are {known}, or {', '.join(KINDS)}")
    return found


def _command(kind: str, *flag_files: Path) -> tuple[str, ...]:
    flags = (f"--flagfile={path}" for path in flag_files)
    return (sys.executable, "-m", f"{kind}.main", *flags)


def _own(conf_dir: Path, name: str) -> Path:
    return conf_dir / f"{name}.flags"
