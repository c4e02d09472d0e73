"""Requests of one model joined: one seek and one run for the rows of all that wait.

The event loop runs the models itself: Paddle holds the GIL for the whole of a run, so that a thread
would give the loop nothing, and costs each run some 50 µs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

import numpy as np
from numpy.typing import NDArray

from ctr_serving.batch_wait import BatchWait
from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.engine import ROWS_PER_RUN_MAX, Engine
from ctr_serving.jobs import Features, Job, RequestJob
from ctr_serving.sources import Source
from ctr_serving.trace import ROWS_TOLD_MAX, MissingKey, Trace
from cube_api import (
    STATUS_FAILED,
    STATUS_MISSING,
    STATUS_WRONG_WIDTH,
    SeekResult,
)
from cube_core.errors import (
    CubeError,
    OverloadError,
    PredictionError,
    RpcTimeoutError,
    SeekTimeoutError,
)
from cube_core.wire.service import RpcContext

log = logging.getLogger(__name__)

JOINED_BATCHES_MAX = 2
"""Batches under way at once when requests are joined: one asks the shards while one is run. More
of them by `runtime_thread_num`."""
SINGLE_BATCHES_MAX = 64
"""The same when each request is a batch of its own."""

OVERLOAD_WAIT_S = 0.02
"""When somebody has waited for longer, and for longer than OVERLOAD_BATCHES take, the newest go
first: most are answered as fast as ever, and those that cannot be in time are refused."""
OVERLOAD_BATCHES = 4

_SMOOTHING = 0.2
"""Weight of the last batch in the mean time of a batch."""


class Batches:
    """Answers requests in batches; belongs to one event loop.

    A request that finds fewer than the allowed batches under way begins at once, with those that
    came in the same step of the loop. The others wait for the end of a batch and then go together,
    as far as they have the same model and `conf.batch_rows_max` allows. With `conf.batch_wait_us` a
    batch that is not full waits so long for others.

    Args:
        queue_timeout_s: a request that waited longer is refused, so that an overload costs those
            that are refused, and not the latency of all.
    """

    def __init__(
        self,
        conf: EngineConf,
        source: Source,
        counters: Counters,
        *,
        queue_timeout_s: float,
    ) -> None:
        self._conf = conf
        self._source = source
        self._counters = counters
        self._queue_timeout_s = queue_timeout_s
        self._batches_max = SINGLE_BATCHES_MAX
        if conf.batch_rows_max:
            self._batches_max = max(JOINED_BATCHES_MAX, conf.runtime_thread_num)
        self._queue: deque[Job] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._start_is_due = False
        self._batch_s = 0.0
        self._wait = BatchWait(conf.batch_wait_us, conf.batch_rows_max, self._start)
        counters.queues.append(lambda: sum(job.rows for job in self._queue))

    async def answer(
        self, engine: Engine, features: Features, context: RpcContext, trace: Trace
    ) -> bytes:
        """Response bytes with a prediction for each instance, of which there is at least one.

        Raises:
            OverloadError: the request waited longer than `queue_timeout_s`.
            RpcTimeoutError: the caller's timeout passed.
            SeekError, VersionNotLoadedError: the embedding could not be asked.
            PredictionError: a value is of another width, or Paddle failed.
        """
        job = RequestJob(engine, features, context, trace)
        self.put(job)
        return await job.answer

    def put(self, job: Job) -> None:
        """Queues a job; it is answered later."""
        self._queue.append(job)
        if not self._start_is_due and len(self._running) < self._batches_max:
            self._start_is_due = True
            asyncio.get_running_loop().call_soon(self._start)

    def _start(self) -> None:
        self._start_is_due = False
        while (
            len(self._running) < self._batches_max
            and self._queue
            and self._wait.is_over(self._queue)
            and (jobs := self._cut())
        ):
            task = asyncio.get_running_loop().create_task(self._run(jobs))
            self._running.add(task)
            task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._queue:
            self._start()

    def _cut(self) -> list[Job]:
        """The next requests that go together; none when nobody waits."""
        jobs: list[Job] = []
        rows = 0
        self._drop_late()
        # First come, first served would let all wait for as long as they can.
        newest_first = self._is_overloaded()
        while self._queue:
            job = self._queue[-1 if newest_first else 0]
            if jobs and (
                rows + job.rows > self._conf.batch_rows_max or job.engine is not jobs[0].engine
            ):
                break
            if newest_first:
                self._queue.pop()
            else:
                self._queue.popleft()
            problem = self._problem_of(job)
            if problem is not None and job.requests > 1:
                self._queue.extendleft(reversed(job.parts()))
            elif problem is not None:
                job.fail(problem)
            elif _is_waiting(job):
                jobs.append(job)
                rows += job.rows
        return jobs

    def _drop_late(self) -> None:
        """Ends those who have waited longest as far as they wait in vain."""
        while self._queue:
            job = self._queue[0]
            problem = self._problem_of(job)
            if problem is None:
                return
            self._queue.popleft()
            if job.requests > 1:
                self._queue.extendleft(reversed(job.parts()))
            elif _is_waiting(job):
                job.fail(problem)

    def _is_overloaded(self) -> bool:
        if not self._queue:
            return False
        waited_s = time.monotonic() - self._queue[0].queued_s
        return waited_s > max(OVERLOAD_WAIT_S, OVERLOAD_BATCHES * self._batch_s)

    def _problem_of(self, job: Job) -> CubeError | None:
        """Why a job, or a part of it, is not to be begun."""
        now_s = time.monotonic()
        waited_s = now_s - job.queued_s
        job.trace.seconds["queue"] = waited_s
        if waited_s > self._queue_timeout_s:
            limit_ms = round(self._queue_timeout_s * 1000)
            return OverloadError(f"waited longer than queue_timeout_ms={limit_ms} for its turn")
        # Else an overload would be spent on answers that come just too late.
        if job.deadline_s is not None and job.deadline_s - now_s < min(self._batch_s, waited_s):
            return RpcTimeoutError("too little of the caller's timeout was left to answer")
        return None

    async def _run(self, jobs: list[Job]) -> None:
        start_s = time.monotonic()
        try:
            await self._answer_together(jobs)
            self._batch_s += _SMOOTHING * (time.monotonic() - start_s - self._batch_s)
        except Exception as error:
            # What one request is at fault for must not fail the others; a shard that is too slow
            # would be so again. Some may have their answer already.
            requests = sum(job.requests for job in jobs)
            if requests == 1 or isinstance(error, SeekTimeoutError):
                if not isinstance(error, CubeError):
                    log.exception("a batch of %d requests failed", requests)
                for job in jobs:
                    job.fail(error)
                return
            for part in _parts_of(jobs):
                if _is_in_time(part):
                    await self._run([part])

    async def _answer_together(self, jobs: list[Job]) -> None:
        manifest = jobs[0].engine.manifest
        keys, dense = _joined(jobs)
        queue_s = time.monotonic() - min(job.queued_s for job in jobs)
        start_s = time.perf_counter()
        found = await self._source.seek(
            manifest.dict_name,
            keys,
            version=manifest.version,
            dim=manifest.embedding_dim,
            on_failure="status" if self._conf.degrades else "raise",
        )
        seek_s = time.perf_counter() - start_s
        jobs = self._checked(jobs, found)
        rows = found.rows.reshape(len(dense), -1)
        waiting = [_is_in_time(job) for job in jobs]
        if not all(waiting):
            wanted = np.repeat(waiting, [job.rows for job in jobs])
            jobs = [job for job, waits in zip(jobs, waiting, strict=True) if waits]
            if not jobs:
                return
            rows, dense = rows[wanted], dense[wanted]
        start_s = time.perf_counter()
        if len(jobs) > 1 or jobs[0].requests > 1:
            rows_num = jobs[0].engine.rows_to_run(len(dense))
            rows, dense = _padded(rows, rows_num), _padded(dense, rows_num)
        probabilities = await _predict(jobs[0].engine, rows, dense)
        infer_s = time.perf_counter() - start_s
        self._counters.observe_batch(queue_s, seek_s, infer_s)
        begin = 0
        for job in jobs:
            job.trace.seconds.update(seek=seek_s, infer=infer_s)
            end = begin + job.rows
            if job.trace.is_detailed:
                await _time_rows(job, rows[begin:end], dense[begin:end])
            job.succeed(probabilities[begin:end])
            begin = end

    def _checked(self, jobs: list[Job], found: SeekResult) -> list[Job]:
        """The jobs, or their parts where wrong values, failed shards or deadlines were met."""
        if found.status.any():
            if found.errors or (found.status == STATUS_WRONG_WIDTH).any():
                jobs = _parts_of(jobs)
            self._check_found(jobs, found)
        now_s = time.monotonic()
        if any(job.deadline_s is not None and now_s > job.deadline_s for job in jobs):
            jobs = _parts_of(jobs)
        return jobs

    def _check_found(self, jobs: list[Job], found: SeekResult) -> None:
        """Puts the default vectors for keys without a row; fails those jobs that met wrong values,
        and tells those whose shards failed."""
        engine = jobs[0].engine
        slots = engine.manifest.slots
        status = found.status.reshape(-1, slots)
        missing, failed = status == STATUS_MISSING, status == STATUS_FAILED
        if engine.default_rows is not None:
            places = np.flatnonzero(missing | failed)
            found.rows[places] = engine.default_rows[places % slots]
        self._counters.count_missing(missing.sum(axis=0))
        if found.errors:
            self._counters.count_failed(failed.sum(axis=0))
        begin = 0
        for job in jobs:
            end = begin + job.rows
            if job.trace.is_detailed:
                _tell_missing(job, missing[begin:end])
            if found.errors:
                job.trace.degraded = _degraded(int(failed[begin:end].sum()), found)
            _check_widths(job, status[begin:end])
            begin = end


def _tell_missing(job: Job, missing: NDArray[np.bool_]) -> None:
    keys = job.features.keys.reshape(missing.shape)
    job.trace.missing += [
        MissingKey(row, slot, int(keys[row, slot])) for row, slot in np.argwhere(missing).tolist()
    ]


async def _time_rows(job: Job, rows: NDArray[np.float32], dense: NDArray[np.float32]) -> None:
    """What the first instances take when each is run alone."""
    for row in range(min(job.rows, ROWS_TOLD_MAX)):
        start_s = time.perf_counter()
        job.engine.predict(rows[row : row + 1], dense[row : row + 1])
        job.trace.row_seconds.append(time.perf_counter() - start_s)
        await asyncio.sleep(0)


def _check_widths(job: Job, status: NDArray[np.int32]) -> None:
    """Fails the request when a value is of another width; status is int32[rows, slots]."""
    wrong = np.argwhere(status == STATUS_WRONG_WIDTH)
    if not wrong.size:
        return
    manifest = job.engine.manifest
    instance, slot = wrong[0].tolist()
    key = int(job.features.keys.view(np.uint64)[instance * manifest.slots + slot])
    job.fail(
        PredictionError(
            f"dict {manifest.dict_name}, version {manifest.version}: the value of key {key}"
            f" (instance {instance}, slot {slot}) is not {manifest.embedding_dim} floats wide"
        )
    )


def _degraded(keys_num: int, found: SeekResult) -> str:
    if not keys_num:
        return ""
    reasons = "; ".join(str(error) for error in found.errors)
    return f"degraded: {keys_num} keys have the default vector, for their shards failed: {reasons}"


def _joined(jobs: list[Job]) -> Features:
    if len(jobs) == 1:
        return jobs[0].features
    keys, dense = zip(*(job.features for job in jobs), strict=True)
    return Features(np.concatenate(keys), np.concatenate(dense))


def _padded(matrix: NDArray[np.float32], rows_num: int) -> NDArray[np.float32]:
    """With rows of zeros up to so many."""
    if rows_num <= len(matrix):
        return matrix
    zeros = np.zeros((rows_num - len(matrix), matrix.shape[1]), np.float32)
    return np.concatenate([matrix, zeros])


def _parts_of(jobs: list[Job]) -> list[Job]:
    return [part for job in jobs for part in job.parts()]


def _is_waiting(job: Job) -> bool:
    """Whether somebody still waits for the answer."""
    if job.is_over:
        job.drop()
        return False
    return True


def _is_in_time(job: Job) -> bool:
    """Whether somebody still waits, and not longer than it wants to."""
    if not _is_waiting(job):
        return False
    if job.deadline_s is not None and time.monotonic() > job.deadline_s:
        job.fail(RpcTimeoutError("the caller's timeout passed before the answer was made"))
        return False
    return True


async def _predict(
    engine: Engine, rows: NDArray[np.float32], dense: NDArray[np.float32]
) -> NDArray[np.float32]:
    if len(dense) <= ROWS_PER_RUN_MAX:
        return engine.predict(rows, dense)
    parts = []
    for begin in range(0, len(dense), ROWS_PER_RUN_MAX):
        end = begin + ROWS_PER_RUN_MAX
        parts.append(engine.predict(rows[begin:end], dense[begin:end]))
        await asyncio.sleep(0)
    return np.concatenate(parts)
