"""What answering one request took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

ROWS_TOLD_MAX = 100
"""Instances whose own time is told, and missing keys that are named."""


class MissingKey(NamedTuple):
    """A key without a row, and where it stands in the request."""

    instance: int
    slot: int
    key: int


@dataclass(slots=True)
class Trace:
    """Filled while a request is answered.

    Attributes:
        version: embedding version of the model that answered; "" when none did.
        rows: instances of the request.
        seconds: by stage; those of seek and infer are of the whole batch that the request was in.
        is_detailed: whether somebody reads what follows.
        missing: keys that had no row.
        row_seconds: what the models take for each instance when it is run alone; see `time_rows`.
        single_runs: for each run of a model, runs of its instances one by one.
        degraded: why defaults stand for keys whose shard failed; "" when none do.
    """

    version: str = ""
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    is_detailed: bool = False
    missing: list[MissingKey] = field(default_factory=list)
    row_seconds: list[float] = field(default_factory=list)
    single_runs: list[Iterator[Callable[[], object]]] = field(default_factory=list)
    degraded: str = ""

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Adds to the time of a stage that may come more than once."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    async def time_rows(self) -> None:
        """Runs the first instances one by one. It takes so long that nobody is to wait for it but
        who wants to know.

        Raises:
            PredictionError: Paddle refused to run one.
        """
        for runs in self.single_runs:
            for row, run in enumerate(islice(runs, ROWS_TOLD_MAX)):
                start_s = time.perf_counter()
                run()
                if row == len(self.row_seconds):
                    self.row_seconds.append(0.0)
                self.row_seconds[row] += time.perf_counter() - start_s
                await asyncio.sleep(0)
        self.single_runs.clear()

    def text(self) -> str:
        """In one line: version, rows, µs by stage, µs by instance, and instance:slot=key of missing
        keys."""
        said = [f"version={self.version}", f"rows={self.rows}"]
        said += [f"{stage}_us={seconds * 1e6:.0f}" for stage, seconds in self.seconds.items()]
        if self.row_seconds:
            row_us = [f"{seconds * 1e6:.0f}" for seconds in self.row_seconds]
            said.append(f"row_us={_listed(row_us, self.rows)}")
        if self.missing:
            places = (f"{each.instance}:{each.slot}={each.key}" for each in self.missing)
            said.append(f"missing={_listed(places, len(self.missing))}")
        return " ".join(said)


def _listed(items: Iterable[str], count: int) -> str:
    shown = list(islice(items, ROWS_TOLD_MAX))
    return ",".join([*shown, "…"] if count > len(shown) else shown)
