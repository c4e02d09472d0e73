"""Queries of rules and dashboards: checked with promtool, compared with the metrics page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.monitoring.documented import ROOT, documented

_METRIC = re.compile(r"\b(?:cube|ctr|process)_[a-z_]+\b")


def promtool(*arguments: str | Path) -> str:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is missing; it is in Debian's package prometheus: see .ci/run")
    done = subprocess.run([path, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def known_names() -> set[str]:
    """Every series that a role exposes."""
    names: set[str] = set()
    for metrics in documented().values():
        for name, described in metrics.items():
            suffixes = ("_bucket", "_sum", "_count") if described.type == "histogram" else ("",)
            names.update(name + suffix for suffix in suffixes)
    return names


def names_in(expression: str) -> set[str]:
    """Metrics of an expression, without names inside strings and label matchers."""
    return set(_METRIC.findall(re.sub(r"\{[^}]*\}", "", expression)))
