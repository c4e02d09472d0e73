"""The servers in a `cube.conf` that clients read: they change only when the new ones serve."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

_TOPOLOGY = ("shard", "dup", "type", "nodes")


def keep_servers(wanted: str, path: Path, dict_names: Collection[str]) -> str:
    """The text `wanted` with the servers that the file at `path` has for these dicts. Those that
    it does not have are as wanted."""
    found = _entries(path)
    entries = json.loads(wanted)
    for entry in entries:
        before = found.get(entry["dict_name"])
        if before is not None and entry["dict_name"] in dict_names:
            entry.update(_topology(before))
    return json.dumps(entries, indent=4) + "\n"


def moved_dicts(wanted: str, path: Path) -> list[str]:
    """Names of the dicts that have other servers in the file at `path`."""
    found = _entries(path)
    return [
        entry["dict_name"]
        for entry in json.loads(wanted)
        if entry["dict_name"] in found and _topology(found[entry["dict_name"]]) != _topology(entry)
    ]


def _topology(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in _TOPOLOGY if name in entry}


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    """By name of the dict; none of a file that is not there or no cube.conf."""
    try:
        return {entry["dict_name"]: entry for entry in json.loads(path.read_bytes())}
    except (OSError, ValueError, LookupError, TypeError):
        return {}
