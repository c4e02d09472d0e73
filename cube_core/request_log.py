"""One line for a request that fails or is slow, and only so many of them a second."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from cube_core import log as logs

log = logging.getLogger("cube.requests")

LINES_PER_S = 5.0
LINES_AT_ONCE = 20
_TEXT_MAX = 500
# Downloads and loads take as long as they take.
_UNHURRIED = "ControlService"


class RequestLog:
    """Of one process; thread-safe.

    Attributes:
        slow_s: a request that takes longer is told.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.slow_s = math.inf
        self._clock = clock
        self._lock = threading.Lock()
        self._room = float(LINES_AT_ONCE)
        self._counted_s = clock()
        self._left_out = 0

    def failed(
        self, method: str, problem: object, *, peer: str = "", request_id: str = "", more: int = 0
    ) -> None:
        """Tells that a request failed.

        Args:
            request_id: that of the task when "".
            more: others that failed alike.
        """
        text = f"{method} failed: {problem}"
        if more:
            text = f"{text} (and {more} more)"
        fields: dict[str, object] = {"method": method, "peer": peer, "request_id": request_id}
        self._write(logging.WARNING, text, fields)

    def slow(self, method: str, seconds: float, *, peer: str = "", request_id: str = "") -> None:
        """Tells that a request took long, unless it is one of those that may."""
        if _UNHURRIED in method:
            return
        fields = {"method": method, "peer": peer, "request_id": request_id}
        text = f"{method} took {seconds:.3f} s"
        self._write(logging.WARNING, text, {**fields, "seconds": round(seconds, 6)})

    def _write(self, level: int, text: str, fields: dict[str, object]) -> None:
        left_out = self._take_turn()
        if left_out is None:
            return
        # What peers send must not make lines of its own.
        text = " ".join(text.split())[:_TEXT_MAX]
        fields = {**fields, "request_id": fields["request_id"] or logs.request_id()}
        told = {
            name: str(value)[:_TEXT_MAX] if isinstance(value, str) else value
            for name, value in fields.items()
        }
        peer = f" from {fields['peer']}" if fields["peer"] else ""
        suffix = f"; {left_out} lines before it were left out" if left_out else ""
        log.log(level, "%s%s%s", text, peer, suffix, extra={"fields": told})

    def _take_turn(self) -> int | None:
        """How many lines were left out before this one; None when it is, too."""
        with self._lock:
            now_s = self._clock()
            gained = (now_s - self._counted_s) * LINES_PER_S
            self._room = min(float(LINES_AT_ONCE), self._room + gained)
            self._counted_s = now_s
            if self._room < 1:
                self._left_out += 1
                return None
            self._room -= 1
            left_out, self._left_out = self._left_out, 0
            return left_out


request_log = RequestLog()
"""The process's own."""
