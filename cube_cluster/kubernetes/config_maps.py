"""The configuration files of the pods, in ConfigMaps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from cube_cluster.cluster import Cluster, Dict
from cube_cluster.conf_files import ConfFiles
from cube_cluster.kubernetes import names
from cube_cluster.kubernetes.pod_cluster import ctr_place, pod_cluster
from cube_cluster.kubernetes.pods import Object, metadata
from cube_cluster.kubernetes.section import Kubernetes
from cube_cluster.layout import shard_servers, transfers
from cube_core.endpoint import DnsName

CLIENTS = "cube-clients"
"""The ConfigMap of what clients read: they notice when it is changed."""


class RoleConf:
    """The files of each role, as `ConfFiles` writes them for the cluster that the pods see.

    Args:
        origin: path of cluster.yml, which the files name.
    """

    def __init__(self, cluster: Cluster, section: Kubernetes, origin: str) -> None:
        self._section = section
        self._cluster = pod_cluster(cluster, section)
        self._files = ConfFiles(
            self._cluster,
            origin,
            names.CONF_DIR,
            keeps_cube_conf=False,  # Pods only read their files.
            ctr_address=DnsName(names.host_of(names.CTR_PODS, section), ctr_place(cluster).port),
        ).all()

    def clients(self) -> dict[str, str]:
        known = ("cube.conf", "predictors.prototxt")
        return {name: self._files[name] for name in known if name in self._files}

    def shard(self, shard: names.Shard) -> dict[str, str]:
        """Those of the replicas of a shard, which are all alike."""
        server = next(
            each
            for each in shard_servers(self._cluster)
            if (each.dict_name, each.shard) == (shard.dict.name, shard.number)
        )
        return {
            "gflags.conf": self._files["gflags.conf"],
            f"{shard.name}.flags": self._files[f"{server.name}.flags"],
        }

    def transfer(self, conf: Dict) -> dict[str, str]:
        found = next(each for each in transfers(self._cluster) if each.dict.name == conf.name)
        return {
            f"{names.TRANSFER}.flags": self._files[f"{found.name}.flags"],
            found.conf_name: self._files[found.conf_name],
        }

    def ctr(self) -> dict[str, str]:
        return {
            f"{names.CTR}.flags": self._files["ctr_serving_0.flags"],
            "model_toolkit.prototxt": self._files["model_toolkit.prototxt"],
        }

    def config_maps(self) -> list[Object]:
        """All of them, but that of `clients`."""
        maps = []
        for conf in self._cluster.dicts:
            servers: dict[str, str] = {}
            for number in range(conf.shards):
                servers |= self.shard(names.Shard(conf, number))
            maps.append(self._config_map(names.SERVER, names.servers_conf_name(conf), servers))
            name = names.transfer_name(conf)
            maps.append(self._config_map(names.TRANSFER, name, self.transfer(conf)))
        if self._cluster.ctr is not None:
            maps.append(self._config_map(names.CTR, names.CTR, self.ctr()))
        return maps

    def clients_config_map(self) -> Object:
        return self._config_map(CLIENTS, CLIENTS, self.clients())

    def _config_map(self, kind: str, name: str, files: Mapping[str, str]) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": metadata(kind, name, self._section),
            "data": dict(files),
        }


def sha256_of(files: Mapping[str, str]) -> str:
    """Of what files say. In a pod's template it has pods start anew when that is changed."""
    said = {
        name: [line for line in text.splitlines() if not line.startswith("#")]
        for name, text in files.items()
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
