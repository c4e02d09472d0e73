"""What a thread that seeks has seen, and the figures of all of them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cube_api._result import SeekBytesResult, SeekResult
from cube_core._native import STATUS_FOUND

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


@dataclass
class Tally:
    """Seeks of one thread.

    Attributes:
        latencies_us: of the seeks that were answered.
        failed: seeks that raised.
        first_error: what the first of them raised.
    """

    latencies_us: array[float] = field(default_factory=lambda: array("d"))
    failed: int = 0
    first_error: str = ""
    keys: int = 0
    found: int = 0

    def add(self, result: SeekResult | SeekBytesResult, elapsed_s: float) -> None:
        self.latencies_us.append(elapsed_s * 1e6)
        self.keys += len(result.status)
        self.found += int(np.count_nonzero(result.status == STATUS_FOUND))

    def fail(self, error: Exception) -> None:
        self.failed += 1
        self.first_error = self.first_error or str(error)


@dataclass(frozen=True)
class Figures:
    """Latencies in microseconds, and rates, of many seeks; all 0 when none was answered."""

    requests: int
    failed: int
    first_error: str
    elapsed_s: float
    keys: int
    found: int
    mean_us: float
    min_us: float
    max_us: float
    percentiles_us: dict[float, float]

    @property
    def qps(self) -> float:
        return self.requests / self.elapsed_s if self.elapsed_s > 0 else 0.0

    def lines(self) -> list[str]:
        """The figures for a person to read; what each is stands in `FIGURES_HELP`."""
        share = self.found / self.keys if self.keys else 0.0
        percentiles = " ".join(f"p{p:g} {us:.0f}" for p, us in self.percentiles_us.items())
        lines = [
            f"{self.requests} requests, mean {self.mean_us:.0f}, {percentiles},"
            f" max {self.max_us:.0f} us, {self.qps:.0f} qps",
            f"{self.keys} keys, {share:.2%} found",
        ]
        if self.failed:
            lines.append(f"{self.failed} requests FAILED, the first: {self.first_error}")
        return lines


FIGURES_HELP = """requests: seeks that were answered, each of --batch keys.
mean, p50 … p99.9, max: microseconds of one seek, from call to rows.
qps: answered seeks a second of wall time, all threads together.
found: share of the keys that the servers hold."""


def figures_of(tallies: Sequence[Tally], elapsed_s: float) -> Figures:
    """Figures of all threads, that ran side by side for `elapsed_s`."""
    latencies = _joined(tally.latencies_us for tally in tallies)
    empty = not len(latencies)
    at = np.zeros(len(PERCENTILES)) if empty else np.percentile(latencies, PERCENTILES)
    return Figures(
        requests=len(latencies),
        failed=sum(tally.failed for tally in tallies),
        first_error=next((tally.first_error for tally in tallies if tally.failed), ""),
        elapsed_s=elapsed_s,
        keys=sum(tally.keys for tally in tallies),
        found=sum(tally.found for tally in tallies),
        mean_us=0.0 if empty else float(latencies.mean()),
        min_us=0.0 if empty else float(latencies.min()),
        max_us=0.0 if empty else float(latencies.max()),
        percentiles_us=dict(zip(PERCENTILES, map(float, at), strict=True)),
    )


def _joined(arrays: Iterable[array[float]]) -> np.ndarray:
    return np.concatenate([np.zeros(0), *(np.frombuffer(each) for each in arrays if each)])
