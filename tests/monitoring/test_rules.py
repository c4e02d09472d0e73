"""Alert rules and the scrape configuration, against promtool and the metrics page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs_site.slugs import slug
from tests.monitoring.documented import ROOT
from tests.monitoring.promql import known_names, names_in, promtool

PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = PROMETHEUS / "cube.rules.yml"
UNIT_TESTS = sorted((PROMETHEUS / "tests").glob("*_test.yml"))
TROUBLESHOOTING = ROOT / "docs" / "operating" / "troubleshooting.md"
SEVERITIES = {"critical", "warning", "info"}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_rules_and_configuration_are_valid() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES)
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_the_configuration_for_kubernetes_is_valid(tmp_path: Path) -> None:
    conf = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text(encoding="utf-8"))
    # Debian's promtool is built without the discovery of pods.
    (discovery,) = conf["scrape_configs"][0].pop("kubernetes_sd_configs")
    assert discovery["role"] == "pod"
    conf["rule_files"] = [str(PROMETHEUS / name) for name in conf["rule_files"]]
    path = tmp_path / "kubernetes.yml"
    path.write_text(yaml.safe_dump(conf))
    promtool("check", "config", path)


@pytest.mark.parametrize("path", UNIT_TESTS, ids=lambda path: path.stem)
def test_alerts_fire_when_they_should_and_only_then(path: Path) -> None:
    promtool("test", "rules", path)


def test_every_alert_is_tested_both_ways() -> None:
    fires: set[str] = set()
    is_silent: set[str] = set()
    for path in UNIT_TESTS:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for test in group["promql_expr_test"]:
                alert = re.search(r'alertname="(\w+)"', test["expr"])
                assert alert is not None
                (fires if test["exp_samples"] else is_silent).add(alert[1])
    names = {rule["alert"] for rule in alerts()}
    assert len(names) == len(alerts())
    assert fires == names
    assert is_silent == names


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    anchors = {
        slug(line.lstrip("# "), "-")
        for line in TROUBLESHOOTING.read_text(encoding="utf-8").splitlines()
        if line.startswith("#")
    }
    for rule in alerts():
        texts = rule["annotations"]
        assert rule["labels"]["severity"] in SEVERITIES
        assert texts["summary"]
        assert texts["description"]
        page, _, anchor = texts["runbook"].partition("#")
        assert ROOT / page == TROUBLESHOOTING
        assert anchor == slug(rule["alert"], "-")
        assert anchor in anchors, f"{page} has no section {rule['alert']}"


def test_rules_use_documented_metrics_only() -> None:
    for rule in alerts():
        used = names_in(rule["expr"])
        assert used or rule["expr"].startswith("up{")
        assert used <= known_names(), rule["alert"]


def test_targets_are_those_of_the_sample_cluster() -> None:
    from cube_cluster import layout
    from cube_cluster.cluster_file import read_cluster

    cluster = read_cluster(ROOT / "conf" / "cluster.yml")
    expected = {
        "cube-server": {
            (f"{each.host}:{each.port}", f"{each.dict_name}/{each.shard}")
            for each in layout.shard_servers(cluster)
        },
        "cube-transfer": {(f"{each.host}:{each.port}", "") for each in layout.transfers(cluster)},
        "ctr-serving": {(f"{each.host}:{each.port}", "") for each in layout.ctr_servers(cluster)},
    }
    conf = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    found = {
        job["job_name"]: {
            (target, targets.get("labels", {}).get("shard", ""))
            for targets in job["static_configs"]
            for target in targets["targets"]
        }
        for job in conf["scrape_configs"]
    }
    assert found == expected


def test_pods_have_the_labels_that_targets_are_made_of() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "kubernetes.yml").read_text(encoding="utf-8"))[
        "scrape_configs"
    ]
    used = {name for rule in job["relabel_configs"] for name in rule["source_labels"]}
    pods = pods_of(ROOT / "deploy" / "kubernetes" / "manifests")
    of_servers = {"cube_dict", "cube_shard"}
    found = set()
    for pod in pods:
        labels = {re.sub(r"\W", "_", name): value for name, value in pod["labels"].items()}
        job_name = labels["app_kubernetes_io_name"]
        found.add(job_name)
        offered = {f"__meta_kubernetes_pod_label_{name}" for name in labels}
        offered |= {"__meta_kubernetes_pod_name", "__meta_kubernetes_pod_container_port_name"}
        needed = used - {f"__meta_kubernetes_pod_label_{name}" for name in of_servers}
        assert needed <= offered, job_name
        assert (job_name == "cube-server") == (of_servers <= set(labels)) == (used <= offered)
        assert labels["app_kubernetes_io_part_of"] == "cube-serving"
        assert pod["namespace"] == job["kubernetes_sd_configs"][0]["namespaces"]["names"][0]
        assert "http" in pod["ports"]
    assert found == {"cube-server", "cube-transfer", "ctr-serving"}


def pods_of(manifests: Path) -> list[dict[str, Any]]:
    """Labels, namespace and names of ports of every pod that is described there."""
    documents = [
        document
        for path in sorted(manifests.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if document and document["kind"] in ("StatefulSet", "Deployment")
    ]
    return [
        {
            "labels": document["spec"]["template"]["metadata"]["labels"],
            "namespace": document["metadata"]["namespace"],
            "ports": {
                port["name"]
                for container in document["spec"]["template"]["spec"]["containers"]
                for port in container["ports"]
            },
        }
        for document in documents
    ]
