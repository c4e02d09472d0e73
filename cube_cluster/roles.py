"""The roles that `cube up` runs on this machine, and their commands."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cube_cluster.cluster import Cluster
from cube_cluster.layout import (
    CtrServer,
    ShardServer,
    Transfer,
    all_shard_servers,
    ctr_servers,
    model_path,
    transfers,
)
from cube_cluster.ports import is_local
from cube_core.errors import ClusterError

KINDS = ("cube_server", "cube_transfer", "ctr_serving")


@dataclass(frozen=True)
class Role:
    """One process to be run.

    Attributes:
        name: `<kind>_<i>`, numbered over the whole cluster, also where other machines run some.
        ports: those it listens on, by the name of their flag.
        files: what it reads at its start.
        fixed: what cannot become another while it runs, by field of cluster.yml.
    """

    name: str
    kind: str
    host: str
    ports: dict[str, int]
    command: tuple[str, ...]
    files: tuple[Path, ...] = ()
    fixed: dict[str, str] = field(default_factory=dict)

    def directory(self, run_dir: Path) -> Path:
        return run_dir / self.name

    def log_path(self, run_dir: Path) -> Path:
        return self.directory(run_dir) / f"{self.name}.log"


def all_roles(cluster: Cluster, conf_dir: Path) -> list[Role]:
    """Every role of the cluster, started from the files in `conf_dir`, in the order to start."""
    return [
        *(_server_role(cluster, each, conf_dir) for each in all_shard_servers(cluster)),
        *(_transfer_role(cluster, each, conf_dir) for each in transfers(cluster)),
        *(_ctr_role(cluster, each, conf_dir) for each in ctr_servers(cluster)),
    ]


def _server_role(cluster: Cluster, server: ShardServer, conf_dir: Path) -> Role:
    ports = {"port": server.port, "grpc_port": server.grpc_port}
    if server.grpc_port < 0:
        del ports["grpc_port"]
    fixed = {
        "dict": server.dict_name,
        "shard": str(server.shard),
        "data_dir": server.data_dir,
        **_fixed(cluster, server.host, ports),
    }
    flag_files = (conf_dir / "gflags.conf", _own(conf_dir, server.name))
    command = _command("cube_server", *flag_files)
    return Role(server.name, "cube_server", server.host, ports, command, flag_files, fixed)


def _transfer_role(cluster: Cluster, transfer: Transfer, conf_dir: Path) -> Role:
    ports = {"port": transfer.port}
    fixed = {
        "dict": transfer.dict.name,
        "output_address": transfer.output_address,
        "tmp_address": transfer.tmp_address,
        "model_path": model_path(cluster, transfer.dict),
        **_fixed(cluster, transfer.host, ports),
    }
    own = _own(conf_dir, transfer.name)
    command, files = _command("cube_transfer", own), (own, conf_dir / transfer.conf_name)
    return Role(transfer.name, "cube_transfer", transfer.host, ports, command, files, fixed)


def _ctr_role(cluster: Cluster, ctr: CtrServer, conf_dir: Path) -> Role:
    ports = {"port": ctr.port, "grpc_port": ctr.grpc_port}
    own = _own(conf_dir, ctr.name)
    command, files = _command("ctr_serving", own), (own, conf_dir / "model_toolkit.prototxt")
    fixed = _fixed(cluster, ctr.host, ports)
    return Role(ctr.name, "ctr_serving", ctr.host, ports, command, files, fixed)


def _fixed(cluster: Cluster, host: str, ports: Mapping[str, int]) -> dict[str, str]:
    """Those with TLS and those without do not understand each other."""
    tls = "off" if cluster.security.tls_cert_file is None else "on"
    return {"host": host, **{name: str(port) for name, port in ports.items()}, "TLS": tls}


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
