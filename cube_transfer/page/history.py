"""The figures of the last minutes, for charts; memory is bounded by the number of series."""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

WINDOW_S = 15 * 60.0
_DIGITS = 4

Points = Sequence["float | None"]


class History:
    """Series of figures that were sampled at the same times.

    Args:
        interval_s: between two samples.
        window_s: older ones are forgotten.
    """

    def __init__(self, interval_s: float, window_s: float = WINDOW_S) -> None:
        self._points_max = max(2, round(window_s / interval_s))
        self._times_s: deque[float] = deque(maxlen=self._points_max)
        self._series: dict[str, deque[float | None]] = {}

    def copy(self) -> History:
        """One that stays as it is, for another thread."""
        copied = copy.copy(self)
        copied._times_s = self._times_s.copy()
        copied._series = {name: points.copy() for name, points in self._series.items()}
        return copied

    def add(self, figures: Mapping[str, float | None], at_s: float | None = None) -> None:
        """Adds one sample of every series.

        Args:
            figures: None, or not named: there is none at this time.
            at_s: Unix seconds; now if not given.
        """
        for name in figures:
            if name not in self._series:
                before: list[float | None] = [None] * len(self._times_s)
                self._series[name] = deque(before, maxlen=self._points_max)
        self._times_s.append(time.time() if at_s is None else at_s)
        for name, points in self._series.items():
            points.append(_rounded(figures.get(name)))

    def forget(self, names: Iterable[str]) -> None:
        """Ends series for good, so that memory stays bounded where servers come and go."""
        for name in names:
            self._series.pop(name, None)

    def times_s(self) -> list[float]:
        """Unix seconds of the samples, oldest first."""
        return [round(at_s, 1) for at_s in self._times_s]

    def points(self, name: str) -> Points:
        """One for each of `times_s`; empty for a series that is not known."""
        return list(self._series.get(name, ()))

    def coarse(self, name: str, points_max: int) -> Points:
        """As `points`, joined to at most so many, each the highest of its neighbours."""
        points = self.points(name)
        step = -(-len(points) // points_max) or 1
        # From the end, so that the newest are of a whole step.
        starts = range(len(points) % step - step if len(points) % step else 0, len(points), step)
        return [_highest(points[max(0, start) : start + step]) for start in starts]


def _highest(points: Points) -> float | None:
    return max((each for each in points if each is not None), default=None)


def _rounded(value: float | None) -> float | None:
    """Short in JSON: what is shown has three digits."""
    return None if value is None else float(f"{value:.{_DIGITS}g}")
