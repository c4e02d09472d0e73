"""The Grafana dashboard: made by its script, whole, and of metrics that there are."""

from __future__ import annotations

import json
import runpy
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.documented import ROOT
from tests.monitoring.promql import known_names, names_in, promtool

GRAFANA = ROOT / "deploy" / "grafana"


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GRAFANA / "cube.json").read_text(encoding="utf-8"))
    return found


def panels_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries_of(dashboard: dict[str, Any]) -> list[str]:
    queries = [target["expr"] for panel in panels_of(dashboard) for target in panel["targets"]]
    return queries + [each["expr"] for each in dashboard["annotations"]["list"]]


def test_it_is_what_the_script_makes() -> None:
    made = runpy.run_path(str(GRAFANA / "make_dashboard.py"))["text"]()
    assert (GRAFANA / "cube.json").read_text(encoding="utf-8") == made, (
        "run python deploy/grafana/make_dashboard.py"
    )


def test_panels_are_whole(dashboard: dict[str, Any]) -> None:
    source = {"type": "prometheus", "uid": "${datasource}"}
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert names == {"datasource", "shard"}
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels_of(dashboard):
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == source
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == source
            assert target["refId"]
            assert target["legendFormat"] or panel["type"] == "stat"


def test_panels_lie_beside_each_other(dashboard: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    for place in places:
        assert place["x"] + place["w"] <= 24
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


def test_queries_use_documented_metrics_only(dashboard: dict[str, Any]) -> None:
    for query in queries_of(dashboard):
        assert names_in(query) <= known_names(), query


def test_queries_can_be_asked(dashboard: dict[str, Any], tmp_path: Path) -> None:
    rules = [
        {
            "record": f"query:{number}",
            "expr": query.replace("$__rate_interval", "5m").replace("$shard", ".*"),
        }
        for number, query in enumerate(queries_of(dashboard))
    ]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)
