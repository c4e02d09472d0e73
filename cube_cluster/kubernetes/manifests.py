"""The manifests of a cluster, as text: one file for what belongs together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import yaml

from cube_cluster.cluster import Cluster
from cube_cluster.conf_files import MARK
from cube_cluster.kubernetes import names
from cube_cluster.kubernetes.config_maps import RoleConf
from cube_cluster.kubernetes.network import network_policies
from cube_cluster.kubernetes.pod_cluster import check_for_kubernetes
from cube_cluster.kubernetes.pods import Object
from cube_cluster.kubernetes.roles import ctr_objects, shard_objects, transfer_objects
from cube_cluster.kubernetes.section import Kubernetes

SECRETS_EXAMPLE = "secrets.yaml.example"
"""No manifest by its name, so that `kubectl apply` of the directory leaves it alone."""


def manifests(cluster: Cluster, origin: str) -> dict[str, str]:
    """Text of every file by its name; kubectl applies them in the order of their names. The same
    cluster gives the same bytes.

    Args:
        origin: path of cluster.yml, which the files name.

    Raises:
        PlacementError: a field is missing, or cannot be as it is on Kubernetes.
    """
    section = check_for_kubernetes(cluster)
    conf = RoleConf(cluster, section, origin)
    files: dict[str, Sequence[Object]] = {
        "00-namespace.yaml": [_namespace(section), _service_account(section)],
        "10-network-policies.yaml": network_policies(cluster, section),
        "20-config.yaml": conf.config_maps(),
        "30-clients.yaml": [conf.clients_config_map()],
    }
    for shard in names.shards(cluster):
        files[f"40-{shard.name}.yaml"] = shard_objects(cluster, section, conf, shard)
    for each in cluster.dicts:
        files[f"50-{names.transfer_name(each)}.yaml"] = transfer_objects(
            cluster, section, conf, each
        )
    if cluster.ctr is not None:
        files[f"60-{names.CTR}.yaml"] = ctr_objects(cluster, section, conf)
    files[SECRETS_EXAMPLE] = _secrets_example(section)
    return {name: _text(objects, origin) for name, objects in files.items()}


def _namespace(section: Kubernetes) -> Object:
    levels = ("enforce", "warn")
    restricted = {f"pod-security.kubernetes.io/{level}": "restricted" for level in levels}
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": section.namespace, "labels": restricted},
    }


def _service_account(section: Kubernetes) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "cube-serving", "namespace": section.namespace},
        "automountServiceAccountToken": False,
    }


def _secrets_example(section: Kubernetes) -> list[Object]:
    """What has to be there, with values that nobody may keep."""
    secrets = section.secrets
    found = [_secret(secrets.tokens, section, {"operate": "CHANGE-ME", "read": "CHANGE-ME-TOO"})]
    if secrets.tls is not None:
        keys = dict.fromkeys(("tls.crt", "tls.key", "ca.crt"), "CHANGE-ME: PEM")
        found.append({**_secret(secrets.tls, section, keys), "type": "kubernetes.io/tls"})
    if secrets.sources is not None:
        variables = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "CHANGE-ME")
        found.append(_secret(secrets.sources, section, variables))
    return found


def _secret(name: str, section: Kubernetes, values: dict[str, str]) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": section.namespace},
        "type": "Opaque",
        "stringData": values,
    }


def _text(objects: Iterable[Object], origin: str) -> str:
    documents = yaml.dump_all(
        objects,
        Dumper=_Dumper,
        explicit_start=True,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )
    return f"# {MARK} from {origin}: change that file, not this one.\n{documents}"


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Texts of several lines as they stand; no anchors for what occurs twice."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
