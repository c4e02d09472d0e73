"""One timer for many that wait for something which is hardly ever late."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Protocol


class Late(Protocol):
    """Who is to be told that it is late.

    Attributes:
        due_s: on the monotonic clock, when.
    """

    due_s: float

    def late(self) -> None:
        """Called once at most, at `due_s`."""


class Alarm:
    """Tells those who wait too long; belongs to one event loop.

    Its timer stays set when the one it was set for waits no more, since setting a timer and taking
    it back costs each of them more than looking now and then in vain.
    """

    def __init__(self) -> None:
        self._waiting: dict[Late, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf

    def add(self, waiter: Late) -> None:
        """It waits."""
        self._waiting[waiter] = None
        if waiter.due_s < self._timer_s:
            self._set(waiter.due_s)

    def remove(self, waiter: Late) -> None:
        """It waits no more, if it did."""
        self._waiting.pop(waiter, None)

    def cancel(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _set(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        wait_s = max(0.0, due_s - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._timer, self._timer_s = None, math.inf
        now_s = time.monotonic()
        for waiter in [each for each in self._waiting if each.due_s <= now_s]:
            self.remove(waiter)
            waiter.late()
        if self._waiting:
            self._set(min(each.due_s for each in self._waiting))
