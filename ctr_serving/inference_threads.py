"""Threads in which predictors run, so that the event loop does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class InferenceThreads:
    """A fixed number of threads, each of them the only one that runs its predictor: Paddle keeps
    what it prepared for a shape by thread.

    Belongs to one event loop.
    """

    def __init__(self, count: int) -> None:
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"inference-{index}") for index in range(count)
        ]
        self._pending = [0] * count

    async def run(self, job: Callable[[int], T]) -> T:
        """Runs `job(thread)` in the thread with the least to do and returns what it returns."""
        thread = self._pending.index(min(self._pending))
        self._pending[thread] += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads[thread], job, thread
            )
        finally:
            self._pending[thread] -= 1

    def close(self) -> None:
        """Waits for what is running."""
        for thread in self._threads:
            thread.shutdown(cancel_futures=True)
