"""Manifests as Kubernetes would look at them: which pods there are, and what they find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cube_cluster.cluster_file import read_cluster
from cube_cluster.kubernetes.manifests import SECRETS_EXAMPLE, manifests

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "deploy" / "kubernetes" / "cluster.yml"

MANY = """
dicts:
  - {name: Users.v2, donefile_address: 's3://bucket/donefile', shards: 3, replicas: 2, port: 8001,
     kubernetes: {storage: 200Gi, storage_class: ssd, anti_affinity: preferred}}
  - {name: ads_, donefile_address: 'hdfs://namenode:8020/donefile', shards: 1, port: 7000,
     grpc_port: -1, transfer: {port: 8099}, build: {quant: int8}}
  - {name: lone, donefile_address: 'http://passes.example:8080/donefile', shards: 1, port: 7100,
     transfer: {port: 8097}}
ctr:
  servers: [{port: 8010}]
  engines:
    - {name: a, dict_name: Users.v2}
    - {name: b, dict_name: ads_, enable_batch_align: true}
flags:
  cube_server: {workers: 2, drain_timeout_s: 45.5}
limits:
  ctr_serving: {rows_per_request_max: 5000}
security: {tls_cert_file: here, tls_key_file: here, tls_ca_file: here, tls_server_name: cube}
kubernetes:
  namespace: prod
  cluster_domain: k8s.example
  image: registry.example:5000/team/cube@sha256:0123
  image_pull_secrets: [registry]
  cube_server: {resources: {requests: {cpu: 0.5, memory: 1Gi}}}
  ctr_serving: {replicas_min: 3, replicas_max: 3}
  secrets: {tokens: my-tokens, tls: my-tls, sources: s3-keys}
  network:
    embedding_clients: [{labels: {app: jobs}}]
    operators: [{namespace: ops}]
    source_cidr: 10.0.0.0/8
"""
"""Everything that the example does not have: several dicts, TLS, remote sources."""


@dataclass(frozen=True)
class Template:
    """The pods that an object makes."""

    owner: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.owner["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.owner["spec"]["template"]["metadata"]["labels"]
        return labels

    @property
    def kind(self) -> str:
        return self.labels["app.kubernetes.io/name"]

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.owner["spec"]["template"]["spec"]
        return spec

    @property
    def container(self) -> dict[str, Any]:
        container: dict[str, Any] = self.spec["containers"][0]
        return container

    @property
    def ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    def is_selected_by(self, labels: Mapping[str, str]) -> bool:
        return labels.items() <= self.labels.items()

    def writable(self) -> list[str]:
        return [m["mountPath"] for m in self.container["volumeMounts"] if not m.get("readOnly")]


class Site:
    """All objects of a deployment, those of the example of its Secrets too."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files
        self.documents = {
            name: [each for each in yaml.safe_load_all(text) if each]
            for name, text in files.items()
        }

    @classmethod
    def written_from(cls, path: Path) -> Site:
        return cls(manifests(read_cluster(path), str(path)))

    def objects(self, *kinds: str) -> list[dict[str, Any]]:
        return [
            each
            for documents in self.documents.values()
            for each in documents
            if not kinds or each["kind"] in kinds
        ]

    def named(self, kind: str, name: str) -> dict[str, Any]:
        (found,) = [each for each in self.objects(kind) if each["metadata"]["name"] == name]
        return found

    def templates(self) -> list[Template]:
        return [Template(each) for each in self.objects("StatefulSet", "Deployment")]

    def template(self, kind: str) -> Template:
        return next(each for each in self.templates() if each.kind == kind)

    def files_in(self, template: Template) -> Iterator[tuple[str, str]]:
        """Path and text of every file that ConfigMaps and Secrets bring to a pod."""
        mounts = {m["name"]: m["mountPath"] for m in template.container["volumeMounts"]}
        for volume in template.spec["volumes"]:
            path = mounts[volume["name"]]
            for source in volume.get("projected", {}).get("sources", []):
                data = self.named("ConfigMap", source["configMap"]["name"])["data"]
                yield from ((f"{path}/{key}", text) for key, text in data.items())
            if "secret" in volume:
                secret = self.named("Secret", volume["secret"]["secretName"])
                data = secret["stringData"]
                items = volume["secret"].get("items") or [{"key": k, "path": k} for k in data]
                yield from ((f"{path}/{each['path']}", data[each["key"]]) for each in items)


def example_files() -> dict[str, str]:
    """Those that the repository holds."""
    folder = EXAMPLE.parent / "manifests"
    names = sorted(path.name for path in folder.iterdir())
    assert SECRETS_EXAMPLE in names
    return {name: (folder / name).read_text(encoding="utf-8") for name in names}
