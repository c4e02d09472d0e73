"""Workers that have ended are started again: at once after a steady run, else after pauses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cube_core.errors import ConfError

log = logging.getLogger(__name__)

_STEADY_S = 5.0
_PAUSE_S_MIN = 0.1
_PAUSE_S_MAX = 10.0

Worker = TypeVar("Worker")


def pause_after_s(ran_s: float, pause_s: float) -> float:
    """How long to wait after a worker ran for `ran_s`, when it was `pause_s` the last time."""
    return 0.0 if ran_s > _STEADY_S else _longer(pause_s)


async def start_again(start: Callable[[], Awaitable[Worker]], pause_s: float) -> Worker:
    """The worker that `start` gives in the end; while it raises ConfError the log says so, and it
    is called again after longer and longer pauses."""
    while True:
        await asyncio.sleep(pause_s)
        try:
            return await start()
        except ConfError as error:
            log.error("%s", error)
            pause_s = _longer(pause_s)


def _longer(pause_s: float) -> float:
    return min(max(2 * pause_s, _PAUSE_S_MIN), _PAUSE_S_MAX)
