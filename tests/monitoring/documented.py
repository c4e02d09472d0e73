"""The tables of docs/reference/metrics.md, and what a role exposes, in the same form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "metrics.md"
EVERY_ROLE = "Of every role"


class Described(NamedTuple):
    """A metric: counters with their `_total`, histograms without `_bucket`, labels without `le`."""

    type: str
    labels: frozenset[str]


def documented() -> dict[str, dict[str, Described]]:
    """By heading, by name."""
    found: dict[str, dict[str, Described]] = {}
    heading = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = re.fullmatch(r"`([a-z_]+)`", cells[0])
        if name is None or len(cells) < 5:
            continue
        metrics = found.setdefault(heading, {})
        assert name[1] not in metrics, f"{name[1]} is there twice"
        assert cells[3], f"{name[1]} has no unit"
        assert cells[4], f"{name[1]} has no meaning"
        metrics[name[1]] = Described(cells[1], frozenset(re.findall(r"`([a-z_]+)`", cells[2])))
    return found


def documented_of(role: str) -> dict[str, Described]:
    """All metrics that a role is said to expose."""
    tables = documented()
    return {**tables[role], **tables[EVERY_ROLE]}


def exposed(text: str) -> dict[str, Described]:
    """What a text of Prometheus holds; a metric without a sample has no labels to be seen."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels}
        if family.type == "histogram":
            labels.discard("le")
        assert family.documentation, f"{name} has no help text"
        assert family.samples, f"{name} has no sample: have the role expose one"
        found[name] = Described(family.type, frozenset(labels))
    return found
