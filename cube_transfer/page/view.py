"""What the page is sent, as JSON: numbers without units in their text, names as they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cube_core.redaction import redacted
from cube_transfer.page.history import History
from cube_transfer.page.problems import Problem, newest_failed
from cube_transfer.page.readings import Rates
from cube_transfer.page.situation import CtrNow, ServerNow, Situation
from cube_transfer.state import PassRecord, Stage

PASSES_SHOWN = 20
PROBLEMS_SHOWN = 20
_LOAD_POINTS_MAX = 60
_ERROR_MAX = 2000
_STEPS = {
    Stage.PULLED: "pull",
    Stage.BUILT: "build",
    Stage.SHIPPED: "ship",
    Stage.LOADED: "load",
    Stage.SWITCHED: "switch",
    Stage.PUBLISHED: "publish",
    Stage.DONE: "tidy",
}
_SERIES = (
    "requests",
    "keys",
    "missing",
    "p50",
    "p99",
    "rows",
    "queue_p99",
    "seek_p99",
    "infer_p99",
)


def state_json(now: Situation, problems: Sequence[Problem], output_address: Path) -> bytes:
    """The state of everything. Looks at the disk: not for the event loop."""
    # Errors name addresses, which may have passwords in them.
    shown = [asdict(replace(each, text=redacted(each.text))) for each in problems[:PROBLEMS_SHOWN]]
    if len(problems) > PROBLEMS_SHOWN:
        text = f"And {len(problems) - PROBLEMS_SHOWN} more."
        shown.append(asdict(Problem("more", "note", text, "The tables below have all servers.")))
    return _json(
        {
            "dict_name": now.dict_name,
            "wanted": now.wanted,
            "served_since_s": now.served_since_s(),
            "paused": now.paused,
            "under_way": now.under_way.id if now.under_way else None,
            "problems": shown,
            "summary": _summary(now),
            "rollback_to": _rollback_targets(now, output_address),
            "servers": [_server(now, each) for each in now.servers],
            "deployments": [_deployment(now, each) for each in now.records[:PASSES_SHOWN]],
            "ctr_servers": [_ctr_server(now, each) for each in now.ctr_servers],
        }
    )


def charts_json(history: History, servers: Sequence[str], ctr_servers: Sequence[str]) -> bytes:
    """The figures of the last minutes.

    Args:
        servers, ctr_servers: the names of all.
    """
    names = (*servers, *ctr_servers)
    return _json(
        {
            "has_ctr": bool(ctr_servers),
            "times_s": history.times_s(),
            "series": {name: history.points(name) for name in _SERIES},
            "loads": {name: history.coarse(f"of {name}", _LOAD_POINTS_MAX) for name in names},
        }
    )


def _json(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


def _summary(now: Situation) -> str:
    """What holds when nothing is wrong."""
    shards = len(now.shards())
    servers = f"{_count(len(now.servers), 'server')} of {_count(shards, 'shard')}"
    if not now.wanted:
        return f"{servers} wait for the first pass."
    at_it = sum(each.version == now.wanted for each in now.servers)
    all_of_them = "All " if at_it == len(now.servers) else f"{at_it} of "
    text = f"{all_of_them}{servers} serve {now.wanted}."
    if now.under_way is not None:
        text += f" {now.under_way.version} is on its way: {now.under_way.step or 'begins'}."
    return text


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _rollback_targets(now: Situation, output_address: Path) -> list[dict[str, Any]]:
    """Versions whose tables are kept, newest first; `usual` is the one served before."""
    served = [each for each in now.records if each.kind == "pass" and each.stage.is_served]
    current = next((each for each in served if each.version == now.wanted), None)
    giving_up = now.under_way is not None and now.under_way.kind != "rollback"
    targets: list[dict[str, Any]] = []
    has_usual = False
    for each in served:
        if each is current and not giving_up:
            continue
        if not (output_address / each.version / "build.json").is_file():
            continue
        before = current is not None and each.order < current.order and not each.rolled_back
        usual = not has_usual and before
        has_usual = has_usual or usual
        served_s = each.reached_at_s.get(Stage.SWITCHED.value)
        targets.append({"version": each.version, "served_s": served_s, "usual": usual})
    return targets


def _server(now: Situation, each: ServerNow) -> dict[str, Any]:
    return {
        "name": each.name,
        "endpoint": each.endpoint,
        "shard": each.shard,
        "state": _server_state(now, each),
        "version": each.version,
        "wanted": now.wanted,
        "keys": each.keys,
        "memory_bytes": each.memory_bytes,
        **_seek_figures(each.rates),
    }


def _server_state(now: Situation, each: ServerNow) -> str:
    if each.down:
        return "down"
    if each.version is None:
        return "not asked yet"
    if each.refuses:
        return "refuses"
    if now.under_way is not None and each.version == now.under_way.version:
        return "switched" if each.version != now.wanted else "serves"
    if not each.version:
        return "empty"
    return "serves" if each.version == now.wanted else "behind"


def _seek_figures(rates: Rates | None) -> dict[str, Any]:
    rates = rates or Rates()
    return {
        "requests_s": _short(rates.a_second.get("requests")),
        "keys_s": _short(rates.a_second.get("keys")),
        "p50_s": _short(rates.percentile("seek", 0.5)),
        "p99_s": _short(rates.percentile("seek", 0.99)),
        "missing_share": _short(rates.share("missing_keys", "keys")),
    }


def _ctr_server(now: Situation, each: CtrNow) -> dict[str, Any]:
    rates = each.rates or Rates()
    holders = [server for server in now.servers if not server.down and each.version]
    shards = {server.shard for server in holders if each.version in server.loaded}
    return {
        "name": each.name,
        "state": _ctr_state(now, each),
        "dense": each.version,
        "sparse_shards": len(shards),
        "shards": len(now.shards()),
        "rows_s": _short(rates.a_second.get("rows")),
        "requests_s": _short(rates.a_second.get("requests")),
        "failed_share": _short(rates.share("failed", "requests")),
        **_stage_figures(rates),
        "has_cache": each.has_cache,
        "cache_hit_share": _short(rates.share("cache_hits", "cache_hits", "cache_misses")),
        "missing_by_slot": [_short(value) for value in each.missing_by_slot],
    }


def _stage_figures(rates: Rates) -> dict[str, Any]:
    """Where the time of a batch goes."""
    return {
        f"{stage}_{name}_s": _short(rates.percentile(stage, share))
        for stage in ("queue", "seek", "infer")
        for name, share in (("p50", 0.5), ("p99", 0.99))
    }


def _ctr_state(now: Situation, each: CtrNow) -> str:
    if each.down:
        return "down"
    if each.version is None:
        return "not asked yet"
    if not each.version:
        return "empty"
    return "serves" if each.version == now.wanted or not now.publishes else "behind"


def _deployment(now: Situation, record: PassRecord) -> dict[str, Any]:
    times = record.reached_at_s
    began_s = min(times.values(), default=None)
    is_under_way = now.under_way is not None and now.under_way.id == record.id
    return {
        "id": record.id,
        "order": record.order,
        "version": record.version,
        "kind": "patch" if record.kind == "pass" and record.previous else record.kind,
        "stage": record.stage.value,
        "step": record.step,
        "is_under_way": is_under_way,
        "is_newest_failed": record is newest_failed(now),
        "is_served": record.version == now.wanted and record.stage.is_served,
        "rolled_back": record.rolled_back,
        "error": redacted(record.error or (now.error if is_under_way else ""))[:_ERROR_MAX],
        "late": list(record.late_replicas),
        "began_s": began_s,
        "took_s": _took_s(record, began_s),
        "steps": _steps(record),
        "shards_took_s": record.shards_took_s,
    }


def _took_s(record: PassRecord, began_s: float | None) -> float | None:
    if began_s is None or not record.stage.is_final:
        return None
    return round(max(record.reached_at_s.values()) - began_s, 3)


def _steps(record: PassRecord) -> list[dict[str, Any]]:
    """Those that were done, with their seconds, and the one that is under way or failed. That which
    a superseded pass was given up in is neither."""
    steps: list[dict[str, Any]] = []
    times = record.reached_at_s
    before_s = times.get(Stage.NOTICED.value)
    if before_s is None:
        before_s = times.get(Stage.BUILT.value) if record.kind == "rollback" else None
    for stage, name in _STEPS.items():
        reached_s = times.get(stage.value)
        if reached_s is None or (record.kind == "rollback" and stage is Stage.BUILT):
            continue
        took_s = None if before_s is None else max(0.0, round(reached_s - before_s, 3))
        steps.append({"name": name, "state": "done", "took_s": took_s})
        before_s = reached_s
    if record.step and record.stage not in (Stage.DONE, Stage.SUPERSEDED):
        failed_s = times.get(Stage.FAILED.value)
        took_s = round(failed_s - before_s, 3) if failed_s and before_s else None
        state = "failed" if record.stage is Stage.FAILED else "now"
        since_s = before_s if state == "now" else None
        steps.append({"name": record.step, "state": state, "took_s": took_s, "since_s": since_s})
    return steps


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
