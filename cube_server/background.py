"""Work that must not get in the way of requests."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_NICE = 5


async def let_requests_pass() -> None:
    """Answers the requests that have come meanwhile.

    A command runs through code that no cache holds, ten times as slow as in a row of them: some
    0.1 ms of the event loop a step. Between two steps requests need not wait for the next.
    """
    await asyncio.sleep(0)


async def in_background(work: Callable[[], T]) -> T:
    """Runs `work` in a thread of its own, of a lower priority than the process. It ends with the
    process, wherever it is then.

    Args:
        work: a kernel that releases the GIL, and little else: a thread that waits for its turn
            with the GIL in hand would make all others wait.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        _yield_to_others()
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop has ended, and nobody waits any more

    threading.Thread(target=run, name="cube-background", daemon=True).start()
    return await future


def _yield_to_others() -> None:
    # In Linux a thread has a priority of its own.
    thread_id = threading.get_native_id()
    nice = os.getpriority(os.PRIO_PROCESS, thread_id)
    os.setpriority(os.PRIO_PROCESS, thread_id, min(nice + _NICE, 19))
