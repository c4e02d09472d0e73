"""Runs of one engine that wait, joined as far as the configuration allows."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ctr_serving.batch_wait import BatchWait
from ctr_serving.counters import Counters
from ctr_serving.engine import ROWS_PER_RUN_MAX
from ctr_serving.feeds import Feed, joined, parts, rows_of, signature
from ctr_serving.network import Fetch, Network
from ctr_serving.trace import ROWS_TOLD_MAX, Trace
from cube_core.errors import CubeError, OverloadError, PredictionError
from cube_core.wire.service import RpcContext


@dataclass(slots=True, eq=False)
class _Job:
    network: Network
    feed: Feed
    rows: int
    context: RpcContext
    answer: asyncio.Future[Fetch]
    queued_s: float


class RunQueue:
    """Runs feeds one after the other, on the event loop, as Paddle holds the GIL while it runs.

    Runs that wait for the same model with inputs of the same shapes go together.

    Args:
        rows_max: rows up to which runs are joined; 0: each is run alone.
        wait_us: how long a run waits for others that fill a batch.
        queue_timeout_s: what waited longer is refused.
    """

    def __init__(
        self, rows_max: int, wait_us: int, counters: Counters, *, queue_timeout_s: float
    ) -> None:
        self._rows_max = rows_max
        self._counters = counters
        self._queue_timeout_s = queue_timeout_s
        self._queue: deque[_Job] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._wait = BatchWait(wait_us, rows_max, self._news.set)
        counters.queues.append(lambda: sum(job.rows for job in self._queue))

    async def run(self, network: Network, feed: Feed, context: RpcContext, trace: Trace) -> Fetch:
        """Outputs [n, …] by name.

        Raises:
            PredictionError: the inputs are not those of the model, or Paddle refused to run it.
            OverloadError: it waited longer than `queue_timeout_s`.
            RpcTimeoutError: the caller's timeout passed.
        """
        rows = rows_of(feed)
        if not rows:
            raise PredictionError("nothing to run: the inputs have no instances")
        loop = asyncio.get_running_loop()
        job = _Job(network, feed, rows, context, loop.create_future(), time.monotonic())
        self._queue.append(job)
        self._news.set()
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        fetch = await job.answer
        if trace.is_detailed:
            await _time_rows(network, feed, rows, trace)
        return fetch

    async def _work(self) -> None:
        try:
            while self._queue:
                if not self._wait.is_over(self._queue):
                    self._news.clear()
                    await self._news.wait()
                    continue
                if jobs := self._cut():
                    await self._answer(jobs)
                # Requests that came meanwhile have their turn, and may then go together.
                await asyncio.sleep(0)
        finally:
            self._worker = None

    def _cut(self) -> list[_Job]:
        jobs: list[_Job] = []
        rows = 0
        while self._queue:
            job = self._queue[0]
            if jobs and (
                rows + job.rows > self._rows_max
                or job.network is not jobs[0].network
                or signature(job.feed) != signature(jobs[0].feed)
            ):
                break
            self._queue.popleft()
            if self._is_wanted(job):
                jobs.append(job)
                rows += job.rows
        return jobs

    def _is_wanted(self, job: _Job) -> bool:
        if job.answer.done():
            return False
        try:
            job.context.check_deadline()
            if time.monotonic() - job.queued_s > self._queue_timeout_s:
                limit_ms = round(self._queue_timeout_s * 1000)
                raise OverloadError(f"waited longer than queue_timeout_ms={limit_ms} for its turn")
        except CubeError as error:
            job.answer.set_exception(error)
            return False
        return True

    async def _answer(self, jobs: list[_Job]) -> None:
        queue_s = time.monotonic() - min(job.queued_s for job in jobs)
        start_s = time.perf_counter()
        rows = sum(job.rows for job in jobs)
        try:
            fetch = await _run(jobs[0].network, joined([job.feed for job in jobs]), rows)
        except Exception as error:
            if len(jobs) == 1:
                if not jobs[0].answer.done():
                    jobs[0].answer.set_exception(error)
                return
            # What one is at fault for must not fail the others.
            for job in jobs:
                await self._answer([job])
            return
        self._counters.observe("queue", queue_s)
        self._counters.observe("infer", time.perf_counter() - start_s)
        begin = 0
        for job in jobs:
            end = begin + job.rows
            if not job.answer.done():
                job.answer.set_result({name: each[begin:end] for name, each in fetch.items()})
            begin = end


async def _time_rows(network: Network, feed: Feed, rows: int, trace: Trace) -> None:
    """What the first instances take when each is run alone, added up over all runs."""
    for row, part in enumerate(islice(parts(feed, rows, 1), ROWS_TOLD_MAX)):
        start_s = time.perf_counter()
        network.run(part)
        if row == len(trace.row_seconds):
            trace.row_seconds.append(0.0)
        trace.row_seconds[row] += time.perf_counter() - start_s
        await asyncio.sleep(0)


async def _run(network: Network, feed: Feed, rows: int) -> Fetch:
    if rows <= ROWS_PER_RUN_MAX:
        return network.run(feed)
    fetches = []
    for part in parts(feed, rows, ROWS_PER_RUN_MAX):
        fetches.append(network.run(part))
        await asyncio.sleep(0)
    return {name: np.concatenate([fetch[name] for fetch in fetches]) for name in fetches[0]}
