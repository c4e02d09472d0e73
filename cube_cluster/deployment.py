"""What the commands work on: a cluster, its files for `cube up`, and its roles."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cube_cluster.clients_file import keep_servers
from cube_cluster.cluster import Cluster
from cube_cluster.cluster_file import read_cluster
from cube_cluster.conf_files import CUBE_CONF, ConfFiles
from cube_cluster.roles import Role, all_roles, local_roles
from cube_core.conf.cube_conf import DictConf
from cube_core.errors import ClusterError

SUPERVISOR_LOG_NAME = "cube.log"


@dataclass(frozen=True)
class Deployment:
    """A cluster as it runs in its run directory, seen from the working directory."""

    path: str
    cluster: Cluster

    @classmethod
    def read(cls, path: Path) -> Deployment:
        """Raises ConfError, as `read_cluster`."""
        return cls(str(path), read_cluster(path))

    @property
    def run_dir(self) -> Path:
        return Path(self.cluster.run_dir)

    @property
    def conf_dir(self) -> Path:
        """Where `cube up` writes what the roles read."""
        return self.run_dir / "conf"

    @property
    def supervisor_log(self) -> Path:
        return self.run_dir / SUPERVISOR_LOG_NAME

    def files(self, directory: Path, kept: Collection[str] | None = None) -> dict[str, str]:
        """The configuration files, to be written to `directory`.

        Args:
            kept: dicts whose servers stay in cube.conf as they are found there; None: those with
                servers that are retiring, whose daemon changes it when clients are to leave them.
        """
        files = ConfFiles(self.cluster, self.path, str(directory)).all()
        if kept is None:
            kept = [conf.name for conf in self.cluster.dicts if conf.retiring]
        files[CUBE_CONF] = keep_servers(files[CUBE_CONF], directory / CUBE_CONF, kept)
        return files

    def dict_confs(self) -> list[DictConf]:
        """What cube.conf says of each dict, and then of those with servers that are retiring."""
        files = ConfFiles(self.cluster, self.path, str(self.conf_dir))
        confs = [DictConf.model_validate(entry) for entry in files.cube_conf_entries()]
        return [
            conf.model_copy(update={"tls": conf.tls and conf.tls.relative_to(self.conf_dir)})
            for conf in confs
        ]

    def manifests(self) -> dict[str, str]:
        """The manifests for Kubernetes.

        Raises:
            ConfError: the file says too little for them, or what cannot be there; as `read`.
        """
        from cube_cluster.kubernetes.manifests import manifests
        from cube_cluster.kubernetes.pod_cluster import check_for_kubernetes

        return manifests(read_cluster(self.path, check=check_for_kubernetes), self.path)

    def roles(self) -> list[Role]:
        """Those of all machines."""
        return all_roles(self.cluster, self.conf_dir)

    def local_roles(self) -> list[Role]:
        """Those of this machine.

        Raises:
            ClusterError: there are none.
        """
        roles = local_roles(self.roles())
        if not roles:
            raise ClusterError(f"{self.path}: no role has a host that is this machine")
        return roles
