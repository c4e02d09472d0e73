"""What the daemon tells about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cube_core.errors import DonefileError
from cube_core.redaction import redacted_texts
from cube_transfer.daemon import Daemon
from cube_transfer.listing import waiting_patches
from cube_transfer.remote import shown
from cube_transfer.replica_link import ReplicaLink
from cube_transfer.state import PassRecord
from cube_transfer.watch import DonefileWatch

PASSES_SHOWN = 20


def status_of(daemon: Daemon) -> dict[str, Any]:
    """The daemon's state as JSON: see docs/reference/cube-transfer.md."""
    conf = daemon.settings.conf
    return {
        "dict_name": conf.dict_name,
        "mode": conf.mode,
        "serving": daemon.state.wanted,
        "paused": daemon.state.paused,
        "deploying": _deploying(daemon),
        "donefile": _donefile(daemon.donefiles.bases, daemon.bad_lines()["base"]),
        "patch_file": _patch_file(daemon),
        "passes": [_pass(record) for record in daemon.state.records()[:PASSES_SHOWN]],
        "replicas": {
            link.replica.name: replica_status(link, daemon.state.wanted)
            for link in daemon.fleet.links
        },
        "error": daemon.reconcile_error,
    }


def history_of(daemon: Daemon) -> list[dict[str, Any]]:
    """Every pass and rollback that is remembered, newest first."""
    return [_pass(record) for record in daemon.state.records()]


def _deploying(daemon: Daemon) -> dict[str, Any] | None:
    record = daemon.deployer.under_way
    if record is None:
        return None
    error = daemon.deployer.error or "; ".join(daemon.fleet.shards_down())
    return {**_pass(record), "error": error}


def _donefile(watch: DonefileWatch, bad_lines: Sequence[DonefileError]) -> dict[str, Any]:
    return {
        "address": shown(watch.address),
        "error": watch.error,
        "pass_count": len(watch.reading.entries),
        "bad_lines": [str(error) for error in bad_lines],
        "incomplete_line": watch.reading.incomplete_line,
    }


def _patch_file(daemon: Daemon) -> dict[str, Any] | None:
    watch = daemon.donefiles.patches
    if watch is None:
        return None
    listed = daemon.listed_patches()
    waiting = list(waiting_patches(listed.entries, daemon.state, daemon.deployer.under_way))
    answer = _donefile(watch, daemon.bad_lines()["patch"])
    answer["waiting_count"] = len(waiting)
    answer["waiting"] = [
        {"version": str(entry.version), "for": reason} for entry, reason in waiting[:PASSES_SHOWN]
    ]
    return answer


def _pass(record: PassRecord) -> dict[str, Any]:
    shown: dict[str, Any] = redacted_texts(record.model_dump(mode="json", exclude={"order", "key"}))
    return shown


def replica_status(link: ReplicaLink, wanted: str) -> dict[str, Any]:
    """What is known of one server; it is `ready` when it answers from the wanted version."""
    versions = link.versions
    return {
        "endpoint": str(link.replica.endpoint),
        "shard": link.replica.shard,
        "reached": versions is not None,
        "cur_version": versions.current if versions else "",
        "bg_version": versions.background if versions else "",
        "ready": link.is_at(wanted),
        "error": link.error,
        "attempts": link.attempts,
    }
