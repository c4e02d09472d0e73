"""What was counted lately, for figures of the last minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from cube_server.counters import Counts

SAMPLE_INTERVAL_S = 5.0
"""How exact windows are."""

MINUTE_S = 60.0


class History:
    """Samples of counts over a little more than a minute.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, Counts]] = deque([(clock(), {})])

    def add(self, counts: Counts) -> None:
        """To be called every `SAMPLE_INTERVAL_S`."""
        now_s = self._clock()
        self._samples.append((now_s, counts))
        # The first one that is kept is from before the minute.
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - MINUTE_S:
            self._samples.popleft()

    def grown(self, counts: Counts, window_s: float) -> dict[str, int]:
        """By how much each of `counts` has grown in the last `window_s`, of a minute at most; since
        the start, if that is not as long ago."""
        begin_s = self._clock() - window_s
        before = self._samples[0][1]
        for sampled_s, sample in self._samples:
            if sampled_s > begin_s:
                break
            before = sample
        return {name: count - before.get(name, 0) for name, count in counts.items()}
