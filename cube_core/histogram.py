"""Times counted in buckets, for Prometheus; its own client takes some 10 µs to count one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Histogram:
    """Counts values by upper bounds; of one thread.

    Attributes:
        sum_s: of all values.
    """

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = tuple(bounds_s)
        self._names = [*map(str, self._bounds_s), "+Inf"]
        self._counts = [0] * len(self._names)
        self.sum_s = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Counts a value, as often as it was met."""
        self._counts[bisect_left(self._bounds_s, seconds)] += times
        self.sum_s += seconds * times

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds and how many values are at most that."""
        return list(zip(self._names, map(float, accumulate(self._counts)), strict=True))

    def counts(self) -> dict[str, float]:
        """How many values are in each bucket alone, by its upper bound, and their `sum`."""
        return {**dict(zip(self._names, self._counts, strict=True)), "sum": self.sum_s}
