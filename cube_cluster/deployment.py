"""What the commands work on: a cluster, its files for `cube up`, and its roles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cube_cluster.cluster import Cluster
from cube_cluster.cluster_file import read_cluster
from cube_cluster.conf_files import ConfFiles
from cube_cluster.roles import Role, all_roles, local_roles
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

    def files(self, directory: Path) -> dict[str, str]:
        """The configuration files, to be written to `directory`."""
        return ConfFiles(self.cluster, self.path, str(directory)).all()

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
