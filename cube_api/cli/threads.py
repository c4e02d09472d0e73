"""Runs the same work in several threads that start together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cube_api.cli.tally import Tally


def run_together(
    threads_num: int, prepare: Callable[[], None], work: Callable[[int, Tally, float], None]
) -> tuple[list[Tally], float]:
    """Calls `work(thread number, its tally, time.perf_counter() of the start)` in every thread,
    after every one has called `prepare`.

    Returns:
        The tallies, and the seconds from the start until the last thread was done.

    Raises:
        Exception: the first that `work` raised.
    """
    tallies = [Tally() for _ in range(threads_num)]
    errors: list[BaseException] = []
    begin_s = 0.0

    def begin() -> None:
        nonlocal begin_s
        begin_s = time.perf_counter()

    start = threading.Barrier(threads_num, action=begin)

    def body(number: int) -> None:
        try:
            prepare()
            start.wait()
            work(number, tallies[number], begin_s)
        except threading.BrokenBarrierError:
            pass
        except BaseException as error:
            errors.append(error)
            start.abort()

    # Daemons: an interrupt ends the process without waiting for them.
    threads = [threading.Thread(target=body, args=(n,), daemon=True) for n in range(threads_num)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return tallies, time.perf_counter() - begin_s
