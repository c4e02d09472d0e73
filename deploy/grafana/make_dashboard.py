"""Writes cube.json, the dashboard of a deployment: `python deploy/grafana/make_dashboard.py`.

Metrics: docs/reference/metrics.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).with_name("cube.json")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS = 24
_PANEL_HEIGHT = 8
_STAT_HEIGHT = 4


@dataclass(frozen=True)
class Panel:
    """One chart, or with `kind` "stat" one number a series.

    Attributes:
        queries: PromQL by legend; "" where one series needs none.
        unit: as Grafana calls it.
        red_from: numbers from here on are red.
    """

    title: str
    description: str
    queries: dict[str, str]
    unit: str
    kind: str = "timeseries"
    width: int = 8
    red_from: float | None = None


_SHARD = '{shard=~"$shard"}'


def rate(counter: str, labels: str = "", by: str = "instance") -> str:
    """A sum of rates, by labels."""
    return f"sum by ({by}) (rate({counter}{labels}[$__rate_interval]))"


def quantile(share: float, histogram: str, labels: str = "", by: str = "instance") -> str:
    """A quantile of a histogram, by labels."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels, f'{by}, le')})"


def stat(title: str, description: str, query: str, unit: str, red_from: float | None) -> Panel:
    """One of the numbers at the top."""
    return Panel(title, description, {"": query}, unit, "stat", 4, red_from)


ROWS: dict[str, list[Panel]] = {
    "Now": [
        stat(
            "Shards down",
            "Shards none of whose replicas serves a version",
            'count(count by (shard) (up{job="cube-server"}) unless '
            "count by (shard) (cube_server_version)) or vector(0)",
            "none",
            1,
        ),
        stat(
            "Age of what is served",
            "Since the donefile named the pass that is served",
            "max by (dict) (time() - cube_transfer_served_pass_timestamp_seconds)",
            "s",
            6 * 3600,
        ),
        stat(
            "Last deployment failed",
            "1 until a pass, a retry or a rollback succeeds",
            'max(cube_transfer_last_deployment_timestamp_seconds{result="failed"} > bool ignoring '
            '(result) cube_transfer_last_deployment_timestamp_seconds{result="done"})',
            "none",
            1,
        ),
        stat(
            "Predictions failed or refused",
            "Share of requests without a prediction",
            'sum(rate(ctr_requests_total{outcome!~"ok|degraded"}[$__rate_interval]))'
            " / sum(rate(ctr_requests_total[$__rate_interval]))",
            "percentunit",
            0.01,
        ),
        stat(
            "p99 of predictions",
            "From a request's arrival to its answer, all predictors together",
            "histogram_quantile(0.99, "
            "sum by (le) (rate(ctr_request_seconds_bucket[$__rate_interval])))",
            "s",
            0.1,
        ),
        stat(
            "Fullest disk",
            "Of servers and daemon, used share",
            "1 - min(cube_server_disk_free_bytes / cube_server_disk_size_bytes or "
            "cube_transfer_disk_free_bytes / cube_transfer_disk_size_bytes)",
            "percentunit",
            0.9,
        ),
    ],
    "Shard servers": [
        Panel(
            "Requests",
            "Seeks a second of each server",
            {"{{instance}} (shard {{shard}})": rate(
                "cube_server_seek_requests_total", _SHARD, "instance, shard"
            )},
            "reqps",
        ),
        Panel(
            "Keys",
            "Keys asked for, a second",
            {"{{instance}}": rate("cube_server_seek_keys_total", _SHARD)},
            "ops",
        ),
        Panel(
            "Time of seeks",
            "In the process, without the wait before it",
            {
                "p50 {{instance}}": quantile(0.5, "cube_server_seek_seconds", _SHARD),
                "p99 {{instance}}": quantile(0.99, "cube_server_seek_seconds", _SHARD),
            },
            "s",
        ),
        Panel(
            "Missing keys",
            "Share of the keys that have no row",
            {"shard {{shard}}": rate("cube_server_seek_missing_keys_total", _SHARD, "shard")
             + " / " + rate("cube_server_seek_keys_total", _SHARD, "shard")},
            "percentunit",
        ),
        Panel(
            "Errors",
            "Seeks answered with an error, and connections refused or cut off",
            {
                "errors {{instance}}": rate("cube_server_seek_errors_total", _SHARD),
                "refused {{instance}}": rate("cube_server_connections_refused_total", _SHARD),
                "cut off {{instance}}": rate("cube_server_peers_cut_off_total", _SHARD),
            },
            "ops",
        ),
        Panel(
            "Versions",
            "Servers by the version that they serve; two lines while they switch",
            {"{{dict}} {{version}}": f"count by (dict, version) (cube_server_version{_SHARD})"},
            "none",
        ),
        Panel(
            "Memory of tables",
            "Of all loaded versions",
            {"{{instance}}": f"sum by (instance) (cube_server_table_bytes{_SHARD})"},
            "bytes",
        ),
        Panel(
            "CPU",
            "Of the process; of the supervisor where there are workers",
            {"{{instance}}": rate("process_cpu_seconds_total", '{job="cube-server"}')},
            "percentunit",
        ),
        Panel(
            "Traffic",
            "Bodies of seeks and of their answers",
            {
                "in {{instance}}": rate("cube_server_seek_request_bytes_total", _SHARD),
                "out {{instance}}": rate("cube_server_seek_response_bytes_total", _SHARD),
            },
            "Bps",
        ),
    ],
    "Deployments": [
        Panel(
            "Age of what is served",
            "Since the donefile named it: a saw, with a tooth for each pass",
            {"{{dict}}": "time() - cube_transfer_served_pass_timestamp_seconds"},
            "s",
        ),
        Panel(
            "Ended deployments",
            "By result, in each interval",
            {"{{kind}} {{result}}": "sum by (kind, result) "
             "(increase(cube_transfer_deployments_total[$__rate_interval])) > 0"},
            "none",
        ),
        Panel(
            "Step under way",
            "1 for the step that is under way",
            {
                "{{step}}": "max by (step) (cube_transfer_deployment_step) > 0",
                "tried again": "max(cube_transfer_deployment_failing) > 0",
            },
            "none",
        ),
        Panel(
            "Time of steps",
            "Mean of those that ended in the last 6 hours",
            {"{{step}}": "sum by (step) (increase(cube_transfer_step_seconds_sum[6h])) / "
             "sum by (step) (increase(cube_transfer_step_seconds_count[6h]))"},
            "s",
        ),
        Panel(
            "Replicas not at the wanted version",
            "As the daemon last saw them",
            {"shard {{shard}}: {{replica}}": "(cube_transfer_replica_ready == 0) + 1"},
            "none",
        ),
        Panel(
            "Room on disks",
            "Free bytes by directory",
            {
                "{{instance}} {{directory}}": "cube_server_disk_free_bytes",
                "daemon {{instance}} {{directory}}": "cube_transfer_disk_free_bytes",
            },
            "bytes",
        ),
    ],
    "Predictors": [
        Panel(
            "Requests by outcome",
            "limit, timeout and dropped mean too much to do; failed a shard or a model",
            {"{{outcome}}": rate("ctr_requests_total", by="outcome")},
            "reqps",
        ),
        Panel("Instances", "Predicted, a second", {"{{instance}}": rate("ctr_rows_total")}, "ops"),
        Panel(
            "Time of requests",
            "From arrival to answer",
            {
                "p50 {{instance}}": quantile(0.5, "ctr_request_seconds"),
                "p99 {{instance}}": quantile(0.99, "ctr_request_seconds"),
            },
            "s",
        ),
        Panel(
            "Stages of batches, p99",
            "queue: waiting; seek: asking the shards; infer: the model",
            {"{{stage}}": quantile(0.99, "ctr_stage_seconds", by="stage")},
            "s",
        ),
        Panel(
            "Queue",
            "Instances that wait, and requests under way",
            {
                "waiting {{instance}}": "ctr_queue_rows",
                "under way {{instance}}": "ctr_requests_pending",
            },
            "none",
        ),
        Panel(
            "Pass that is served",
            "Processes by pass; two lines while a new model is taken",
            {"{{engine}} {{version}}": "sum by (engine, version) (ctr_model)"},
            "none",
        ),
        Panel(
            "Missing keys by slot",
            "Keys without a row for each instance",
            {"slot {{slot}}": rate("ctr_missing_keys_total", by="slot")
             + " / ignoring (slot) group_left () sum (rate(ctr_rows_total[$__rate_interval]))"},
            "percentunit",
            width=12,
        ),
        Panel(
            "Cache of hot keys",
            "Share of keys that it answers",
            {"{{instance}} {{engine}}": rate("ctr_cache_hits_total", by="instance, engine") + " / ("
             + rate("ctr_cache_hits_total", by="instance, engine") + " + "
             + rate("ctr_cache_misses_total", by="instance, engine") + ")"},
            "percentunit",
        ),
        Panel(
            "Models refused",
            "Processes without the newest model, and attempts a second",
            {
                "without {{instance}} {{engine}}": "ctr_model_problem",
                "refusals {{instance}}": rate("ctr_model_refusals_total"),
            },
            "none",
            width=4,
        ),
    ],
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard, as Grafana imports it."""
    return {
        "uid": "cube-serving",
        "title": "Cube serving",
        "tags": ["cube", "ctr"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": _variables()},
        "annotations": {"list": [_deployments()]},
        "panels": _panels(),
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"},
        {
            "name": "shard",
            "label": "Shard",
            "type": "query",
            "datasource": DATASOURCE,
            "query": 'label_values(up{job="cube-server"}, shard)',
            "refresh": 2,
            "sort": 3,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _deployments() -> dict[str, Any]:
    return {
        "name": "Deployments",
        "enable": True,
        "iconColor": "blue",
        "datasource": DATASOURCE,
        "expr": 'changes(cube_transfer_last_deployment_timestamp_seconds{result="done"}[1m]) > 0',
        "titleFormat": "A deployment is done",
    }


def _panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        place = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False,
             "gridPos": place, "panels": []}
        )  # fmt: skip
        x, y = 0, y + 1
        height = _STAT_HEIGHT if row[0].kind == "stat" else _PANEL_HEIGHT
        for panel in row:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            panels.append({"id": len(panels) + 1, "gridPos": place, **_panel(panel)})
            x += panel.width
        y += height
    return panels


def _panel(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    if panel.red_from is not None:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": panel.red_from}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    targets = [
        {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": query,
         "legendFormat": legend}
        for index, (legend, query) in enumerate(panel.queries.items())
    ]  # fmt: skip
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }


def text() -> str:
    """The bytes of the file."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text(), encoding="utf-8")
