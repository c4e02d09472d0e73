"""What roles write with `--log_format=json`."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from tests.processes import Role

LEVELS = {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}


def json_lines(role: Role, name: str) -> list[dict[str, Any]]:
    """All whole lines so far; every one is an object with the fields that all have."""
    lines = role.log().rpartition("\n")[0].splitlines()
    found: list[dict[str, Any]] = [json.loads(line) for line in lines]
    for line in found:
        assert line["time"].endswith("Z")
        datetime.strptime(line["time"], "%Y-%m-%dT%H:%M:%S.%fZ")
        assert line["level"] in LEVELS
        assert line["role"] == name
        assert isinstance(line["pid"], int)
        assert line["logger"]
        assert line["message"]
    return found
