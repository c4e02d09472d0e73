"""Who may connect to whom: NetworkPolicies that allow what the roles need, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from cube_cluster.cluster import Cluster
from cube_cluster.kubernetes import names
from cube_cluster.kubernetes.pod_cluster import (
    ctr_grpc_port,
    ctr_place,
    server_grpc_port,
    server_port,
)
from cube_cluster.kubernetes.pods import Object, metadata
from cube_cluster.kubernetes.section import Kubernetes, Peer

CLIENT_LABEL = "cube-client"
_DNS_PORT = 53
_NAMESPACE_LABEL = "kubernetes.io/metadata.name"
_SOURCE_PORTS = {"http": 80, "https": 443, "s3": 443}


def network_policies(cluster: Cluster, section: Kubernetes) -> list[Object]:
    """One that denies everything, and one for each role that says what is allowed."""
    policies = [_deny_all(section), _servers(cluster, section), _transfers(cluster, section)]
    return policies + ([_ctr(cluster, section)] if cluster.ctr else [])


def _deny_all(section: Kubernetes) -> Object:
    part_of = {"app.kubernetes.io/part-of": "cube-serving"}
    return _policy("cube-default-deny", "cube-serving", section, part_of, [], [])


def _servers(cluster: Cluster, section: Kubernetes) -> Object:
    network = section.network
    ports = sorted({server_port(conf) for conf in cluster.dicts})
    grpc = sorted({server_grpc_port(conf) for conf in cluster.dicts} - {-1})
    clients = [*_role(names.CTR), *_clients("embeddings", network.embedding_clients)]
    ingress = [
        _rule("from", clients, [*ports, *grpc]),
        # Commands come over the same port; the operate token tells who may send them.
        _rule("from", [*_role(names.TRANSFER), *_clients("operator", network.operators)], ports),
        *_scraped(network.prometheus, ports),
    ]
    downloads = _rule("to", _role(names.TRANSFER), _transfer_ports(cluster))
    return _role_policy(names.SERVER, section, ingress, [_dns(), downloads])


def _transfers(cluster: Cluster, section: Kubernetes) -> Object:
    network, ports = section.network, _transfer_ports(cluster)
    ingress = [
        # Tables, and dense models.
        _rule("from", [*_role(names.SERVER), *_role(names.CTR)], ports),
        _rule("from", _clients("operator", network.operators), ports),
        *_scraped(network.prometheus, ports),
    ]
    servers = _rule("to", _role(names.SERVER), sorted({server_port(c) for c in cluster.dicts}))
    addresses = [conf.donefile_address for conf in cluster.dicts]
    sources = _sources([each for each in addresses if _is_remote(each)], section)
    # Its page shows how they are.
    predictors = [_rule("to", _role(names.CTR), [ctr_place(cluster).port])] if cluster.ctr else []
    return _role_policy(names.TRANSFER, section, ingress, [_dns(), servers, *predictors, *sources])


def _ctr(cluster: Cluster, section: Kubernetes) -> Object:
    network, port = section.network, ctr_place(cluster).port
    ingress = [
        _rule(
            "from",
            _clients("predictions", network.prediction_clients),
            [port, ctr_grpc_port(cluster)],
        ),
        _rule("from", _role(names.TRANSFER), [port]),
        *_scraped(network.prometheus, [port]),
    ]
    servers = _rule("to", _role(names.SERVER), sorted({server_port(c) for c in cluster.dicts}))
    models = _rule("to", _role(names.TRANSFER), _transfer_ports(cluster))
    engines = cluster.ctr.engines if cluster.ctr else []
    # Of daemons that are elsewhere.
    others = _sources([each.model_url for each in engines if each.model_url], section)
    return _role_policy(names.CTR, section, ingress, [_dns(), servers, models, *others])


def _transfer_ports(cluster: Cluster) -> list[int]:
    return sorted({conf.transfer.port for conf in cluster.dicts})


def _is_remote(address: str) -> bool:
    scheme, separator, _ = address.partition("://")
    return bool(separator) and scheme != "file"


def _sources(addresses: Iterable[str], section: Kubernetes) -> list[Object]:
    """To where passes and models come from, each once."""
    rules = [_source(each, section) for each in addresses]
    return [each for index, each in enumerate(rules) if each not in rules[:index]]


def _source(source: str, section: Kubernetes) -> Object:
    """FTP and HDFS answer from ports that nobody knows before."""
    address = urlsplit(source)
    port = address.port or _SOURCE_PORTS.get(address.scheme)
    if "endpoint_override" in address.query or address.scheme in ("ftp", "hdfs"):
        port = None
    to = [{"ipBlock": {"cidr": section.network.source_cidr}}]
    return _rule("to", to, [port] if port else [])


def _role(kind: str) -> list[Object]:
    return [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": kind}}}]


def _clients(kind: str, peers: Iterable[Peer]) -> list[Object]:
    return [
        {"podSelector": {"matchLabels": {CLIENT_LABEL: kind}}},
        *(_peer(each) for each in peers),
    ]


def _peer(peer: Peer) -> Object:
    found: Object = {"podSelector": {"matchLabels": dict(peer.labels)} if peer.labels else {}}
    if peer.namespace is not None:
        found["namespaceSelector"] = {"matchLabels": {_NAMESPACE_LABEL: peer.namespace}}
    return found


def _scraped(peers: list[Peer], ports: list[int]) -> list[Object]:
    return [_rule("from", [_peer(each) for each in peers], ports)] if peers else []


def _rule(direction: str, peers: list[Object], ports: list[int]) -> Object:
    """Without ports: all of them."""
    rule: Object = {direction: peers}
    if ports:
        rule["ports"] = [{"protocol": "TCP", "port": port} for port in ports]
    return rule


def _dns() -> Object:
    return {"ports": [{"protocol": each, "port": _DNS_PORT} for each in ("UDP", "TCP")]}


def _role_policy(
    kind: str, section: Kubernetes, ingress: list[Object], egress: list[Object]
) -> Object:
    return _policy(kind, kind, section, {"app.kubernetes.io/name": kind}, ingress, egress)


def _policy(
    name: str,
    kind: str,
    section: Kubernetes,
    pod_labels: dict[str, str],
    ingress: list[Object],
    egress: list[Object],
) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(kind, name, section),
        "spec": {
            "podSelector": {"matchLabels": pod_labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    }
