"""What the daemon counts of its deployments, since it was started."""

from __future__ import annotations

from collections import Counter
from typing import Final

from cube_core.histogram import Histogram
from cube_transfer.state import PassRecord

STEPS: Final = ("pull", "build", "ship", "load", "switch", "publish", "tidy")
RESULTS: Final = ("done", "failed", "superseded")
KINDS: Final = ("base", "patch", "rollback", "reshard")
_BOUNDS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0)


class DeployCounts:
    """Results, and the steps on the way there.

    Attributes:
        results: by kind and result.
        step_seconds: of steps that came to their end, attempts that failed included.
        step_failures: attempts that failed, by step.
    """

    def __init__(self) -> None:
        self.results: Counter[tuple[str, str]] = Counter()
        self.step_seconds = {step: Histogram(_BOUNDS_S) for step in STEPS}
        self.step_failures: Counter[str] = Counter()

    def count(self, record: PassRecord) -> None:
        """Counts a deployment that has ended."""
        self.results[kind_of(record), record.stage.value] += 1


def kind_of(record: PassRecord) -> str:
    """One of KINDS."""
    if record.kind != "pass":
        return record.kind
    return "base" if record.is_base else "patch"
