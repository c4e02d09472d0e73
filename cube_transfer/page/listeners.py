"""Server-sent events: everybody who listens gets the newest of each kind, at their own pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cube_core.errors import LimitError

LISTENERS_MAX = 32
HEARTBEAT_S = 15.0


@dataclass(frozen=True)
class _Event:
    number: int
    frame: bytes


class Listeners:
    """Nothing is queued: a listener that is slow misses what was replaced meanwhile, and holds
    nobody up.

    Args:
        listeners_max: more at once are refused.
        heartbeat_s: a comment is sent after so long without an event, so that a listener that is
            gone is noticed, and one that listens knows that the daemon is there.

    Attributes:
        count: who listens.
        joined: set whenever somebody begins to; whoever waits for it clears it.
    """

    def __init__(
        self, listeners_max: int = LISTENERS_MAX, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self.count = 0
        self.joined = asyncio.Event()
        self._max = listeners_max
        self._heartbeat_s = heartbeat_s
        self._newest: dict[str, _Event] = {}
        self._changed = asyncio.Event()
        self._number = 0
        self._closed = False

    def send(self, kind: str, data: bytes) -> None:
        """Sends an event, unless it is what was sent last of its kind.

        Args:
            data: one line.
        """
        frame = event_frame(kind, data)
        known = self._newest.get(kind)
        if known is not None and known.frame == frame:
            return
        self._number += 1
        self._newest[kind] = _Event(self._number, frame)
        self._wake()

    def close(self) -> None:
        """Ends all streams."""
        self._closed = True
        self._wake()

    def admit(self) -> None:
        """Counts one listener more, until `leave`.

        Raises:
            LimitError: there are too many.
        """
        if self.count >= self._max:
            raise LimitError(f"{self._max} pages are open already: close one (LISTENERS_MAX)")
        self.count += 1
        self.joined.set()

    def leave(self) -> None:
        """Counts one listener less."""
        self.count -= 1

    async def stream(self, first: bytes) -> AsyncIterator[bytes]:
        """Frames for one listener, beginning with `first`, until `close`."""
        yield first
        seen = 0
        while not self._closed:
            changed = self._changed
            due = [each for each in self._newest.values() if each.number > seen]
            seen = self._number
            if due:
                yield b"".join(each.frame for each in due)
                continue
            try:
                await asyncio.wait_for(changed.wait(), self._heartbeat_s)
            except asyncio.TimeoutError:
                yield b": still here\n\n"

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def event_frame(kind: str, data: bytes) -> bytes:
    """One server-sent event."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), data)
