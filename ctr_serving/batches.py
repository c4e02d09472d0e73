"""Requests of one model joined: one seek and one run for the rows of all that wait.

The event loop runs the models itself: Paddle holds the GIL for the whole of a run, so that a thread
would give the loop nothing, and costs each run some 50 µs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.engine import ROWS_PER_RUN_MAX, Engine
from ctr_serving.jobs import METHOD, Features, Job, RequestJob
from ctr_serving.joined_sizes import padded
from ctr_serving.sources import Source
from ctr_serving.trace import MissingKey, Trace
from ctr_serving.turns import Turns, turns_max
from cube_api import (
    STATUS_FAILED,
    STATUS_MISSING,
    STATUS_WRONG_WIDTH,
    SeekResult,
)
from cube_core.errors import (
    CubeError,
    PredictionError,
    SeekTimeoutError,
)
from cube_core.request_log import request_log
from cube_core.wire.service import RpcContext

log = logging.getLogger(__name__)


IDS_TOLD_MAX = 20
"""Requests of a failed batch that are named."""


class Batches:
    """Answers requests in batches; belongs to one event loop.

    A request that finds fewer than the allowed batches under way begins at once, with those that
    came in the same step of the loop. The others wait for the end of a batch and then go together,
    as far as they have the same model and `conf.batch_rows_max` allows. With `conf.batch_wait_us` a
    batch that is not full waits so long for others.

    Args:
        queue_timeout_s: a request that waited longer is refused.
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
        self._turns = Turns(
            self._run,
            under_way_max=turns_max(conf),
            rows_max=conf.batch_rows_max,
            timeout_s=queue_timeout_s,
            wait_us=conf.batch_wait_us,
        )
        counters.queues.append(lambda: sum(job.rows for job in self._turns))

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
        self._turns.put(job)

    async def _run(self, jobs: list[Job]) -> None:
        start_s = time.monotonic()
        try:
            await self._answer_together(jobs)
            self._turns.took(time.monotonic() - start_s)
        except Exception as error:
            # What one request is at fault for must not fail the others; a shard that is too slow
            # would be so again. Some may have their answer already.
            requests = sum(job.requests for job in jobs)
            if requests == 1 or isinstance(error, SeekTimeoutError):
                _tell(jobs, requests, error)
                for job in jobs:
                    job.fail(error)
                return
            for part in _parts_of(jobs):
                if part.is_in_time():
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
            log_id=_log_id(jobs),
        )
        seek_s = time.perf_counter() - start_s
        jobs = self._checked(jobs, found)
        rows = found.rows.reshape(len(dense), -1)
        waiting = [job.is_in_time() for job in jobs]
        if not all(waiting):
            wanted = np.repeat(waiting, [job.rows for job in jobs])
            jobs = [job for job, waits in zip(jobs, waiting, strict=True) if waits]
            if not jobs:
                return
            rows, dense = rows[wanted], dense[wanted]
        start_s = time.perf_counter()
        if len(jobs) > 1 or jobs[0].requests > 1:
            rows_num = jobs[0].engine.rows_to_run(len(dense))
            rows, dense = padded(rows, rows_num), padded(dense, rows_num)
        probabilities = await _predict(jobs[0].engine, rows, dense)
        infer_s = time.perf_counter() - start_s
        self._counters.observe_batch(queue_s, seek_s, infer_s)
        begin = 0
        for job in jobs:
            end = begin + job.rows
            job.trace.seconds.update(queue=job.waited_s, seek=seek_s, infer=infer_s)
            if job.trace.is_detailed:
                runs = _single_runs(job.engine, rows[begin:end], dense[begin:end])
                job.trace.single_runs.append(runs)
            job.predicted(probabilities[begin:end])
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


def _log_id(jobs: list[Job]) -> int:
    """What the shards find a batch by: the first number that a caller gave."""
    return next((log_id for job in jobs if (log_id := job.log_id)), 0)


def _tell(jobs: list[Job], requests: int, error: Exception) -> None:
    """Tells of a batch that failed as a whole; each request has a line of its own besides."""
    ids = ", ".join(islice((each for job in jobs for each in job.request_ids()), IDS_TOLD_MAX))
    if not isinstance(error, CubeError):
        log.error("a batch of %d requests (%s) failed", requests, ids, exc_info=error)
    elif requests > 1:
        problem = f"a batch of {requests} requests ({ids}): {error}"
        request_log.failed(METHOD, problem, request_id=str(_log_id(jobs) or ""))


def _tell_missing(job: Job, missing: NDArray[np.bool_]) -> None:
    keys = job.features.keys.reshape(missing.shape)
    job.trace.missing += [
        MissingKey(row, slot, int(keys[row, slot])) for row, slot in np.argwhere(missing).tolist()
    ]


def _single_runs(
    engine: Engine, rows: NDArray[np.float32], dense: NDArray[np.float32]
) -> Iterator[Callable[[], object]]:
    for row in range(len(dense)):
        yield partial(engine.predict, rows[row : row + 1], dense[row : row + 1])


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


def _parts_of(jobs: list[Job]) -> list[Job]:
    return [part for job in jobs for part in job.parts()]


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
