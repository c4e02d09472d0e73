"""Turns for those that wait: who goes next, who goes together, and who waits in vain."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from typing_extensions import Self

from ctr_serving.batch_wait import BatchWait
from ctr_serving.conf import EngineConf
from cube_core.errors import CubeError, OverloadError, PredictionError, RpcTimeoutError

log = logging.getLogger(__name__)

JOINED_TURNS_MAX = 2
"""Turns under way at once when those that wait are joined: one asks the shards while one is run.
More of them by `runtime_thread_num`."""
SINGLE_TURNS_MAX = 64
"""The same when each has a turn of its own."""


def turns_max(conf: EngineConf) -> int:
    """Turns of one engine that may be under way at once."""
    if not conf.batch_rows_max:
        return SINGLE_TURNS_MAX
    return max(JOINED_TURNS_MAX, conf.runtime_thread_num)


OVERLOAD_WAIT_S = 0.02
"""When somebody has waited for longer, and for longer than OVERLOAD_TURNS take, the newest go
first: most are answered as fast as ever, and those that cannot be in time are refused."""
OVERLOAD_TURNS = 4

_SMOOTHING = 0.2
"""Weight of the last turn in the mean time of a turn."""


class Waiting(ABC):
    """What waits for its turn; answered, failed or dropped once.

    Attributes:
        kind: those of equal kinds may have a turn together.
        rows: how much there is to do, at least one.
        deadline_s: on the monotonic clock, after which nobody waits; None for ever.
        queued_s: on the monotonic clock, when it began to wait.
        waited_s: how long it did, once it had its turn.
        requests: how many it answers.
    """

    def __init__(self, kind: object, rows: int, deadline_s: float | None) -> None:
        self.kind = kind
        self.rows = rows
        self.deadline_s = deadline_s
        self.queued_s = time.monotonic()
        self.waited_s = 0.0
        self.requests = 1

    @property
    @abstractmethod
    def is_over(self) -> bool:
        """Nobody waits: it was answered or failed, or who asked is gone."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Tells every request the error; does nothing when it is over."""

    def parts(self) -> Sequence[Self]:
        """What stands for this one from now on, one for each request, the same at every call; when
        it is over, itself."""
        return [self]

    @abstractmethod
    def drop(self) -> None:
        """Forgets it, as nobody waits."""

    def is_waiting(self) -> bool:
        """Whether somebody still waits; else it is dropped."""
        if self.is_over:
            self.drop()
            return False
        return True

    def is_in_time(self) -> bool:
        """Whether somebody still waits, and not longer than it wants to; else it is over."""
        if not self.is_waiting():
            return False
        if self.deadline_s is not None and time.monotonic() > self.deadline_s:
            self.fail(RpcTimeoutError("the caller's timeout passed before the answer was made"))
            return False
        return True


T = TypeVar("T")


class WaitingCall(Waiting, Generic[T]):
    """A call that waits for its turn, and whose caller awaits `answer`."""

    def __init__(self, kind: object, rows: int, deadline_s: float | None) -> None:
        super().__init__(kind, rows, deadline_s)
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    @property
    def is_over(self) -> bool:
        return self.answer.done()

    def succeed(self, result: T) -> None:
        if not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def drop(self) -> None:
        self.answer.cancel()


W = TypeVar("W", bound=Waiting)


class Line(Generic[W]):
    """Those that wait, and the rules by which they go.

    Args:
        rows_max: rows up to which those of one kind go together; 0: each goes alone.
        timeout_s: who waited longer is refused, so that an overload costs those that are refused,
            and not the latency of all.

    Attributes:
        turn_s: what a turn takes.
    """

    def __init__(self, rows_max: int, timeout_s: float) -> None:
        self._rows_max = rows_max
        self._timeout_s = timeout_s
        self._queue: deque[W] = deque()
        self.turn_s = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[W]:
        return iter(self._queue)

    def put(self, job: W) -> None:
        self._queue.append(job)

    def cut(self) -> list[W]:
        """The next ones that go together; none when nobody waits."""
        jobs: list[W] = []
        rows = 0
        self._drop_late()
        # First come, first served would let all wait for as long as they can.
        newest_first = self._is_overloaded()
        while self._queue:
            job = self._queue[-1 if newest_first else 0]
            if jobs and (rows + job.rows > self._rows_max or job.kind != jobs[0].kind):
                break
            if newest_first:
                self._queue.pop()
            else:
                self._queue.popleft()
            problem = self._problem_of(job)
            if problem is not None:
                self._refuse(job, problem)
            elif job.is_waiting():
                jobs.append(job)
                rows += job.rows
        return jobs

    def _drop_late(self) -> None:
        """Ends those who have waited longest as far as they wait in vain."""
        while self._queue and (problem := self._problem_of(self._queue[0])) is not None:
            self._refuse(self._queue.popleft(), problem)

    def _refuse(self, job: W, problem: CubeError) -> None:
        if job.requests > 1:
            self._queue.extendleft(reversed(job.parts()))
        elif job.is_waiting():
            job.fail(problem)

    def _is_overloaded(self) -> bool:
        if not self._queue:
            return False
        waited_s = time.monotonic() - self._queue[0].queued_s
        return waited_s > max(OVERLOAD_WAIT_S, OVERLOAD_TURNS * self.turn_s)

    def _problem_of(self, job: W) -> CubeError | None:
        """Why a job, or a part of it, is not to be begun."""
        now_s = time.monotonic()
        job.waited_s = now_s - job.queued_s
        if job.waited_s > self._timeout_s:
            limit_ms = round(self._timeout_s * 1000)
            return OverloadError(f"waited longer than queue_timeout_ms={limit_ms} for its turn")
        # Else an overload would be spent on answers that come just too late.
        if job.deadline_s is not None and job.deadline_s - now_s < min(self.turn_s, job.waited_s):
            return RpcTimeoutError("too little of the caller's timeout was left to answer")
        return None


class Turns(Generic[W]):
    """Gives those that wait their turns; belongs to one event loop.

    Who finds fewer than the allowed turns under way begins at once, with those that came in the
    same step of the loop. The others wait for the end of a turn and then go together, as far as
    they are of one kind and `rows_max` allows.

    Args:
        turn: answers or fails each of those that go together. What it raises they are told.
        under_way_max: turns at once.
        rows_max, timeout_s: see `Line`.
        wait_us: how long a turn that is not full waits for others.
    """

    def __init__(
        self,
        turn: Callable[[list[W]], Coroutine[Any, Any, None]],
        *,
        under_way_max: int,
        rows_max: int,
        timeout_s: float,
        wait_us: int = 0,
    ) -> None:
        self._turn = turn
        self._under_way_max = under_way_max
        self._line = Line[W](rows_max, timeout_s)
        self._wait = BatchWait(wait_us, rows_max, self._start)
        self._running: set[asyncio.Task[None]] = set()
        self._start_is_due = False

    def __iter__(self) -> Iterator[W]:
        """Those that wait, the first first."""
        return iter(self._line)

    def put(self, job: W) -> None:
        """Has it wait for its turn."""
        self._line.put(job)
        if not self._start_is_due and len(self._running) < self._under_way_max:
            self._start_is_due = True
            asyncio.get_running_loop().call_soon(self._start)

    def took(self, seconds: float) -> None:
        """Tells what a turn took whose work was done."""
        self._line.turn_s += _SMOOTHING * (seconds - self._line.turn_s)

    def _start(self) -> None:
        self._start_is_due = False
        while (
            len(self._running) < self._under_way_max
            and self._line
            and self._wait.is_over(self._line)
            and (jobs := self._line.cut())
        ):
            task = asyncio.get_running_loop().create_task(self._turn(jobs))
            self._running.add(task)
            task.add_done_callback(partial(self._end, jobs))

    def _end(self, jobs: list[W], task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if task.cancelled() or task.exception() is not None:
            self._fail(jobs, None if task.cancelled() else task.exception())
        if self._line:
            self._start()

    def _fail(self, jobs: list[W], error: BaseException | None) -> None:
        """Nobody is to wait for an answer that will not come."""
        if error is not None:
            log.error("a turn of %d failed", len(jobs), exc_info=error)
        told = error if isinstance(error, Exception) else PredictionError("the work was cancelled")
        for job in jobs:
            for part in job.parts():
                part.fail(told)
