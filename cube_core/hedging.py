"""How many requests may be sent a second time to another replica."""

from __future__ import annotations

HEDGES_BURST_MAX = 10
"""Backup requests that may follow one another at once, whatever their share."""


class HedgeBudget:
    """Grants backup requests up to a share of all requests, so that a fleet that is slow as a whole
    is not asked twice for everything.

    Args:
        share_max: 0 to 1.
    """

    def __init__(self, share_max: float) -> None:
        self._share_max = share_max
        self._granted = float(HEDGES_BURST_MAX) if share_max else 0.0

    def count_request(self) -> None:
        self._granted = min(self._granted + self._share_max, HEDGES_BURST_MAX)

    def take(self) -> bool:
        """Whether one more may be sent now."""
        if self._granted < 1:
            return False
        self._granted -= 1
        return True
