"""Deadlines of one connection: peers that fall silent, trickle a request or read no answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from cube_core.wire.limits import WireLimits

_LOOKS_PER_TIMEOUT = 4
_LOOK_INTERVAL_S_MIN = 0.01


class PeerWatch:
    """Looks at a connection now and then, so that a request costs it no timer of its own.

    A deadline is therefore noticed up to a quarter of the shortest timeout late.

    Attributes:
        active: set by the protocol when something came; cleared by each look.
        busy: set while a request is being answered; such a connection is never idle.

    Args:
        on_idle: called once when the connection is idle, to close it.
        on_late: called once with the reason when the peer is to be cut off.
    """

    def __init__(
        self,
        limits: WireLimits,
        loop: asyncio.AbstractEventLoop,
        on_idle: Callable[[], None],
        on_late: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._loop = loop
        self._on_idle = on_idle
        self._on_late = on_late
        self.active = False
        self.busy = False
        self._reading = True
        self._active_s = time.monotonic()
        self._partial_s: float | None = None
        self._unread_s: float | None = None
        timeouts_ms = (limits.idle_timeout_ms, limits.frame_timeout_ms, limits.write_timeout_ms)
        shortest_ms = min((each for each in timeouts_ms if each), default=0)
        self._interval_s = max(shortest_ms / 1000 / _LOOKS_PER_TIMEOUT, _LOOK_INTERVAL_S_MIN)
        self._timer: asyncio.TimerHandle | None = None
        if shortest_ms:
            self._timer = loop.call_later(self._interval_s, self._look)

    def partial(self, *, another: bool = True) -> None:
        """A part of a request waits for its rest: of another one than before, or still the same."""
        if another or self._partial_s is None:
            self._partial_s = time.monotonic()

    def whole(self) -> None:
        """No part of a request is waiting for its rest."""
        self._partial_s = None

    def pause(self, pause: bool) -> None:
        """Reading is paused or goes on; the time between does not count against the peer."""
        self._reading = not pause
        if self._reading and self._partial_s is not None:
            self._partial_s = time.monotonic()

    def unread(self) -> None:
        """More waits for the peer than it should."""
        self._unread_s = time.monotonic()

    def read(self) -> None:
        """The peer has read what waited."""
        self._unread_s = None

    def end(self) -> None:
        """The connection has ended, or another protocol speaks on it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        now_s = time.monotonic()
        if self.active or self.busy:
            self.active = False
            self._active_s = now_s
        limits = self._limits
        self._timer = None
        if _passed(self._unread_s, now_s, limits.write_timeout_ms):
            self._on_late(f"reads no answers for write_timeout_ms={limits.write_timeout_ms}")
        elif self._reading and _passed(self._partial_s, now_s, limits.frame_timeout_ms):
            self._on_late(f"no whole request after frame_timeout_ms={limits.frame_timeout_ms}")
        elif _passed(self._active_s, now_s, limits.idle_timeout_ms):
            self._on_idle()
        else:
            self._timer = self._loop.call_later(self._interval_s, self._look)


def _passed(since_s: float | None, now_s: float, timeout_ms: int) -> bool:
    return since_s is not None and timeout_ms > 0 and now_s - since_s > timeout_ms / 1000
