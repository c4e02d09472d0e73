"""Names and labels of what runs on Kubernetes, and where the volumes are in the pods."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cube_cluster.cluster import Cluster, Dict
from cube_cluster.kubernetes.section import Kubernetes
from cube_cluster.layout import PlacementError

CONF_DIR = "/etc/cube"
TOKENS_DIR = "/etc/cube-tokens"
TLS_DIR = "/etc/cube-tls"
DATA_DIR = "/var/lib/cube"
MODELS_DIR = "/models"

CTR = "ctr-serving"
CTR_PODS = "ctr-serving-pods"
"""The Service whose name stands for every CTR pod, of which `CTR` leads to one."""
SERVER = "cube-server"
TRANSFER = "cube-transfer"

# A StatefulSet's name and 11 characters of its revision make a label of 63 at most.
_NAME_LENGTH_MAX = 52


@dataclass(frozen=True)
class Shard:
    """A shard of a dict: one StatefulSet, whose pods are the replicas. The number of shards is in
    its name, so that the servers of another number are others."""

    dict: Dict
    number: int

    @property
    def name(self) -> str:
        return f"cube-{slug(self.dict.name)}-{self.number}-of-{self.dict.shards}"

    def host(self, copy: int, section: Kubernetes) -> str:
        """The name of a pod, as it is known in all namespaces."""
        return f"{self.name}-{copy}.{host_of(self.name, section)}"


def shards(cluster: Cluster) -> list[Shard]:
    return [Shard(conf, number) for conf in cluster.dicts for number in range(conf.shards)]


def servers_conf_name(conf: Dict) -> str:
    """Of the ConfigMap of a dict's servers. Those of another number of shards keep theirs."""
    return f"cube-{slug(conf.name)}-of-{conf.shards}"


def transfer_name(conf: Dict) -> str:
    return f"{TRANSFER}-{slug(conf.name)}"


def models_claim(conf: Dict) -> str:
    return f"cube-models-{slug(conf.name)}"


def models_dir(conf: Dict) -> str:
    return f"{MODELS_DIR}/{conf.name}"


def slug(name: str) -> str:
    """A dict's name as Kubernetes takes names."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def host_of(service: str, section: Kubernetes) -> str:
    """The name of a Service. Written out, it is found by one question to the DNS."""
    return f"{service}.{section.namespace}.svc.{section.cluster_domain}"


def labels(kind: str, instance: str) -> dict[str, str]:
    """Those that every object of a role has."""
    return {
        **selector(kind, instance),
        "app.kubernetes.io/part-of": "cube-serving",
        "app.kubernetes.io/managed-by": "cube-config",
    }


def selector(kind: str, instance: str) -> dict[str, str]:
    """Those that pods of a role are found by."""
    return {"app.kubernetes.io/name": kind, "app.kubernetes.io/instance": instance}


def check_names(cluster: Cluster) -> None:
    """Raises PlacementError when names of dicts do not make different names of Kubernetes."""
    owners: dict[str, str] = {}
    for index, conf in enumerate(cluster.dicts):
        place = ("dicts", index, "name")
        name = slug(conf.name)
        other = owners.setdefault(name, conf.name)
        if not name or other != conf.name:
            problem = f"{conf.name!r} would be {name!r} on Kubernetes"
            raise PlacementError(place, problem + (f", and so would {other!r}" if name else ""))
        longest = max(Shard(conf, conf.shards - 1).name, transfer_name(conf), key=len)
        if len(longest) > _NAME_LENGTH_MAX:
            problem = f"{longest!r}, a name made of it, is over {_NAME_LENGTH_MAX} characters"
            raise PlacementError(place, problem)
