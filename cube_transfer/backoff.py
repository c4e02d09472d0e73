"""Trying again, later and later, until it works."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_never,
    wait_random_exponential,
)

from cube_core.errors import RpcError

T = TypeVar("T")

WAIT_MAX_S = 10.0
TRANSIENT = (OSError, httpx.RequestError, RpcError)
"""What passes by itself: no connection, a peer's 5xx, a full disk."""


class Patience:
    """The waits between attempts, all of which can be cut short at once."""

    def __init__(self) -> None:
        self._lost = asyncio.Event()

    def lose(self) -> None:
        """Ends every wait under way; later ones last as long as ever."""
        self._lost.set()
        self._lost = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._lost.wait(), seconds)


async def until_done(
    action: Callable[[], Awaitable[T]],
    *,
    on_failure: Callable[[BaseException, int], None],
    transient: tuple[type[BaseException], ...] = TRANSIENT,
    attempts_max: int | None = None,
    patience: Patience | None = None,
) -> T:
    """Awaits `action` until it succeeds, with growing random waits between the attempts.

    Args:
        on_failure: called with the error and the number of the attempt before each wait; what it
            raises ends the trying.
        transient: errors that are tried again; every other one is raised at once.
        attempts_max: the last error is raised after so many attempts; None = no end.
        patience: of whoever may want the next attempt at once.
    """

    def note(call: RetryCallState) -> None:
        error = call.outcome.exception() if call.outcome else None
        if error is not None:
            on_failure(error, call.attempt_number)

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(transient),
        wait=wait_random_exponential(multiplier=0.2, max=WAIT_MAX_S),
        stop=stop_never if attempts_max is None else stop_after_attempt(attempts_max),
        before_sleep=note,
        sleep=asyncio.sleep if patience is None else patience.wait,
        reraise=True,
    )

    # tenacity awaits what it takes for a coroutine function, which a lambda is not.
    async def attempt() -> T:
        return await action()

    return await retrying(attempt)
