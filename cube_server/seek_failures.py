"""Lines for seeks that the kernel answers with an error, at no cost to the others."""

from __future__ import annotations

import asyncio

from cube_core._native import Seeker
from cube_core.request_log import request_log

_INTERVAL_S = 1.0


class SeekFailures:
    """Looks once a second at what a seeker could not answer."""

    def __init__(self, seeker: Seeker) -> None:
        self._seeker = seeker
        self._told = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        """Looks a last time."""
        if self._task is not None:
            self._task.cancel()
        self.look()

    def look(self) -> None:
        """Tells the last failure, and how many there were before it since the last look."""
        number, log_id, correlation_id, text = self._seeker.last_failure
        if number == self._told:
            return
        more = number - self._told - 1
        self._told = number
        request_id = str(log_id or f"#{correlation_id}")
        request_log.failed("DictService.seek", text, request_id=request_id, more=more)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            self.look()
