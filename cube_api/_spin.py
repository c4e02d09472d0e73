"""Staying awake for answers that come sooner than a sleeping process is woken."""

from __future__ import annotations

import asyncio
import os
import time

PASSED_OVER_MAX = 64
"""While answers take longer than is spun for, at least one seek of so many is still spun for: they
may have become faster."""

AWAY_PAUSE_S = 0.05
"""For how long no seek is spun for once others have kept the processor."""

_AWAY_S_MIN = 1e-3

_TURN_S_MAX = 20e-6
"""A turn of the loop with nothing to do is shorter; of a longer one so much counts as idle."""


class Spin:
    """Lets an event loop look for answers again and again in place of sleeping until one comes;
    belongs to that loop.

    On a virtual machine a processor that has nothing to do is given back to the host, and being
    woken on it takes tens of µs, more than the loop uses up by staying awake for as long as a seek
    takes. Others that want the processor get it at every turn; where one of them keeps it for a
    millisecond, as work in the background does until the next tick of the clock, a loop that sleeps
    is back sooner, so that no seek is spun for in the next 50 ms.

    Args:
        spin_us: idle time for which a seek is spun for, in µs; 0: for none. When that was in vain,
            twice as many of the next ones are passed over as last time, until one is in time.
    """

    def __init__(self, spin_us: int) -> None:
        self._spin_s = spin_us / 1e6
        # When each is given up, on a clock that stands still while the loop works.
        self._waiting: dict[object, float] = {}
        self._idle_s = 0.0
        self._turned_s = 0.0
        self._is_turning = False
        self._in_vain = 0
        self._to_pass_over = 0
        self._paused_until_s = 0.0

    def add(self, seek: object) -> None:
        """It waits for answers."""
        if not self._spin_s:
            return
        if self._to_pass_over:
            self._to_pass_over -= 1
            return
        now_s = time.monotonic()
        if now_s < self._paused_until_s:
            return
        self._waiting[seek] = self._idle_s + self._spin_s
        if not self._is_turning:
            self._is_turning = True
            self._turned_s = now_s
            asyncio.get_running_loop().call_soon(self._turn)

    def remove(self, seek: object) -> None:
        """It waits no more, if it did."""
        if self._waiting.pop(seek, None) is not None:
            self._in_vain = 0

    def _turn(self) -> None:
        if not self._waiting:
            self._is_turning = False
            return
        before_s = time.monotonic()
        os.sched_yield()
        now_s = time.monotonic()
        if now_s - before_s > _AWAY_S_MIN:
            self._paused_until_s = now_s + AWAY_PAUSE_S
            self._waiting.clear()
            self._is_turning = False
            return
        self._idle_s += min(now_s - self._turned_s, _TURN_S_MAX)
        self._turned_s = now_s
        if next(iter(self._waiting.values())) < self._idle_s:
            self._give_up()
        asyncio.get_running_loop().call_soon(self._turn)

    def _give_up(self) -> None:
        self._waiting = {each: due for each, due in self._waiting.items() if due >= self._idle_s}
        self._in_vain = min(max(1, 2 * self._in_vain), PASSED_OVER_MAX)
        self._to_pass_over = self._in_vain
