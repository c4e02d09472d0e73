"""What the NetworkPolicies let through, judged as Kubernetes does: by both ends."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.manifests import EXAMPLE, MANY, Site

THERE = "elsewhere"


class Pods:
    """Pods with their labels and the name of their namespace."""

    def __init__(self, site: Site) -> None:
        (namespace,) = site.objects("Namespace")
        self.namespace: str = namespace["metadata"]["name"]
        self.policies = site.objects("NetworkPolicy")
        self.labels = {each.kind: (each.labels, self.namespace) for each in site.templates()}

    def add(self, name: str, labels: Mapping[str, str], namespace: str = "") -> None:
        self.labels[name] = ({**labels}, namespace or self.namespace)

    def lets_through(self, source: str, target: str, port: int) -> bool:
        return self._allows(source, target, port, "egress", "to") and self._allows(
            target, source, port, "ingress", "from"
        )

    def _allows(self, pod: str, other: str, port: int, direction: str, peers: str) -> bool:
        labels, namespace = self.labels[pod]
        if namespace != self.namespace:
            return True
        policies = [
            each["spec"]
            for each in self.policies
            if _has(labels, each["spec"]["podSelector"])
            and direction.title() in each["spec"]["policyTypes"]
        ]
        rules = [rule for policy in policies for rule in policy[direction]]
        return not policies or any(
            self._is_of(rule.get(peers), other) and _has_port(rule, port) for rule in rules
        )

    def _is_of(self, peers: list[dict[str, Any]] | None, pod: str) -> bool:
        """No list stands for everybody."""
        if peers is None:
            return True
        assert peers, "an empty list, too, would stand for everybody"
        labels, namespace = self.labels[pod]
        for peer in peers:
            if "ipBlock" in peer:
                continue
            spaces = peer.get("namespaceSelector")
            in_space = (
                _has({"kubernetes.io/metadata.name": namespace}, spaces)
                if spaces is not None
                else namespace == self.namespace
            )
            if in_space and _has(labels, peer.get("podSelector", {})):
                return True
        return False


def _has(labels: Mapping[str, str], selector: Mapping[str, Any]) -> bool:
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _has_port(rule: Mapping[str, Any], port: int) -> bool:
    return "ports" not in rule or any(each["port"] == port for each in rule["ports"])


@pytest.fixture
def pods() -> Pods:
    pods = Pods(Site.written_from(EXAMPLE))
    for kind in ("embeddings", "predictions", "operator"):
        pods.add(f"labelled {kind}", {"cube-client": kind})
        pods.add(f"{THERE} {kind}", {"cube-client": kind}, THERE)
    pods.add("ad server", {"app": "ad-server"}, "ads")
    pods.add("ad server here", {"app": "ad-server"})
    pods.add("prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring")
    pods.add("stranger", {})
    pods.add("stranger elsewhere", {}, THERE)
    return pods


EXPECTED = {
    ("ctr-serving", "cube-server", 8001),
    ("cube-transfer", "cube-server", 8001),
    ("cube-transfer", "ctr-serving", 8010),
    ("cube-server", "cube-transfer", 8098),
    ("ctr-serving", "cube-transfer", 8098),
    ("labelled embeddings", "cube-server", 8001),
    ("labelled embeddings", "cube-server", 9001),
    ("labelled operator", "cube-server", 8001),
    ("labelled operator", "cube-transfer", 8098),
    ("labelled predictions", "ctr-serving", 8010),
    ("labelled predictions", "ctr-serving", 9010),
    ("ad server", "ctr-serving", 8010),
    ("ad server", "ctr-serving", 9010),
    ("prometheus", "cube-server", 8001),
    ("prometheus", "cube-transfer", 8098),
    ("prometheus", "ctr-serving", 8010),
}


def test_what_is_not_needed_is_denied(pods: Pods) -> None:
    roles = ("cube-server", "cube-transfer", "ctr-serving")
    ports = (22, 8001, 9001, 8098, 8010, 9010)
    found = {
        (source, target, port)
        for source, target, port in itertools.product(pods.labels, roles, ports)
        if source != target and pods.lets_through(source, target, port)
    }
    assert found == EXPECTED


def test_ports_of_policies_are_those_of_the_pods(tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text(MANY)
    for site in (Site.written_from(EXAMPLE), Site.written_from(tmp_path / "many.yml")):
        for policy in site.objects("NetworkPolicy"):
            selected = [
                each
                for each in site.templates()
                if each.is_selected_by(policy["spec"]["podSelector"]["matchLabels"])
            ]
            assert selected, policy["metadata"]["name"]
            own = {port for each in selected for port in each.ports.values()}
            assert set(_ports(policy["spec"]["ingress"])) <= own
            for rule in policy["spec"]["egress"]:
                for peer in rule.get("to", []):
                    if "podSelector" not in peer:
                        continue
                    labels = peer["podSelector"]["matchLabels"]
                    targets = [each for each in site.templates() if each.is_selected_by(labels)]
                    assert targets
                    theirs = {port for each in targets for port in each.ports.values()}
                    assert set(_ports([rule])) <= theirs


def _ports(rules: list[dict[str, Any]]) -> Iterator[int]:
    for rule in rules:
        yield from (each["port"] for each in rule["ports"])


def test_the_daemon_reaches_where_passes_come_from(tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text(MANY)
    policy = Site.written_from(tmp_path / "many.yml").named("NetworkPolicy", "cube-transfer")
    outside = [
        [each["port"] for each in rule.get("ports", [])]
        for rule in policy["spec"]["egress"]
        if {"ipBlock": {"cidr": "10.0.0.0/8"}} in rule.get("to", [])
    ]
    # s3, hdfs (whose datanodes listen on ports of their own), http.
    assert outside == [[443], [], [8080]]


def test_predictors_reach_a_daemon_elsewhere_whose_models_they_fetch(tmp_path: Path) -> None:
    elsewhere = MANY.replace(
        "dict_name: ads_", "dict_name: ads_, model_url: 'http://models.example:8098/models'"
    )
    assert elsewhere != MANY
    (tmp_path / "many.yml").write_text(elsewhere)
    policy = Site.written_from(tmp_path / "many.yml").named("NetworkPolicy", "ctr-serving")
    assert {
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
        "ports": [{"protocol": "TCP", "port": 8098}],
    } in policy["spec"]["egress"]


def test_clients_of_the_file_are_let_in(tmp_path: Path) -> None:
    (tmp_path / "many.yml").write_text(MANY)
    pods = Pods(Site.written_from(tmp_path / "many.yml"))
    pods.add("job", {"app": "jobs"})
    pods.add("ops", {"any": "label"}, "ops")
    assert pods.lets_through("job", "cube-server", 9001)
    assert not pods.lets_through("job", "cube-transfer", 8098)
    assert pods.lets_through("ops", "cube-transfer", 8098)
    assert not pods.lets_through("ops", "ctr-serving", 8010)
