"""What waits for predictions: one request, or several that came together on one connection."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from ctr_serving.counters import Counters
from ctr_serving.engine import Engine
from ctr_serving.trace import Trace
from ctr_serving.turns import Waiting, WaitingCall
from cube_core._native import CtrFrames, encode_ctr_response, encode_response_frame
from cube_core.errors import CubeError, LimitError, NotServingError, RpcTimeoutError, WireError
from cube_core.request_log import request_log
from cube_core.wire.batch_path import Caller
from cube_core.wire.service import RpcContext, prpc_request_id

FAILED_CODE = -1
"""err_code of a Response without predictions."""

METHOD = "CTRPredictionService.inference"
"""As it stands in the log."""

_NO_PREDICTIONS = np.empty((0, 2), np.float32)


class Features(NamedTuple):
    """keys int64[n * slots], instance by instance; dense float32[n, dense_dim]."""

    keys: NDArray[np.int64]
    dense: NDArray[np.float32]


class Job(Waiting):
    """Rows that wait for their predictions.

    Attributes:
        engine: whose model and embedding version answer.
        rows: how many instances, at least one.
    """

    def __init__(
        self, engine: Engine, features: Features, deadline_s: float | None, trace: Trace
    ) -> None:
        super().__init__(engine, len(features.dense), deadline_s)
        self.engine = engine
        self.features = features
        self.trace = trace

    @property
    @abstractmethod
    def log_id(self) -> int:
        """The caller's number of its first request that has one; 0 when none has."""

    @abstractmethod
    def request_ids(self) -> list[str]:
        """What its requests are found by in the log."""

    @abstractmethod
    def predicted(self, probabilities: NDArray[np.float32]) -> None:
        """Answers with float32[rows, 2]."""


class RequestJob(Job, WaitingCall[bytes]):
    """One request, answered through a future."""

    def __init__(
        self, engine: Engine, features: Features, context: RpcContext, trace: Trace
    ) -> None:
        super().__init__(engine, features, context.deadline_s, trace)
        self._context = context

    @property
    def log_id(self) -> int:
        return self._context.log_id

    def request_ids(self) -> list[str]:
        return [self._context.request_id()]

    def predicted(self, probabilities: NDArray[np.float32]) -> None:
        self.succeed(encode_ctr_response(probabilities, err_msg=self.trace.degraded))


@final
class FramesJob(Job):
    """Requests of one connection, answered together in frames."""

    def __init__(
        self, engine: Engine, frames: CtrFrames, caller: Caller, counters: Counters, begin_s: float
    ) -> None:
        timeout_ms = frames.timeout_ms_min
        deadline_s = begin_s + timeout_ms / 1000 if timeout_ms else None
        super().__init__(engine, Features(frames.keys, frames.dense), deadline_s, Trace())
        self.queued_s = begin_s
        self.requests = len(frames)
        self._frames = frames
        self._caller = caller
        self._counters = counters
        self._settled = False
        self._parts: list[FramesJob] = []

    @property
    def log_id(self) -> int:
        return next(filter(None, self._frames.log_ids), 0)

    @property
    def is_over(self) -> bool:
        return self._settled or not self._caller.is_open

    def predicted(self, probabilities: NDArray[np.float32]) -> None:
        if self._settled:
            return
        self._counters.rows += self.rows
        if not self.trace.degraded:
            self._settle("ok", self._frames.responses(probabilities))
            return
        # Of one request only: each has its own text.
        response = encode_ctr_response(probabilities, err_msg=self.trace.degraded)
        ids = self._frames.correlation_ids
        self._settle("degraded", b"".join(encode_response_frame(each, response) for each in ids))

    def fail(self, error: Exception) -> None:
        if not self._settled:
            ids = self._frames.correlation_ids
            for request_id in self.request_ids():
                request_log.failed(METHOD, error, peer=self._caller.peer, request_id=request_id)
            self._settle(outcome_of(error), b"".join(self._failure(each, error) for each in ids))

    def parts(self) -> Sequence[FramesJob]:
        if self.requests == 1 or self._settled:
            return [self]
        if not self._parts:
            self._parts = [self._part(number) for number in range(self.requests)]
        return self._parts

    def drop(self) -> None:
        if not self._settled:
            self._settled = True
            self._counters.pending -= self.requests
            self._counters.requests["dropped"] += self.requests

    def _part(self, number: int) -> FramesJob:
        frames = self._frames.part(number, 1)
        return FramesJob(self.engine, frames, self._caller, self._counters, self.queued_s)

    def request_ids(self) -> list[str]:
        ids = zip(self._frames.log_ids, self._frames.correlation_ids, strict=True)
        return [prpc_request_id(log_id, self._caller.peer, number) for log_id, number in ids]

    def _failure(self, correlation_id: int, error: Exception) -> bytes:
        if is_told_in_response(error):
            return encode_response_frame(correlation_id, failed_response(error))
        return self._caller.error_frame(correlation_id, error)

    def _settle(self, outcome: str, frames: bytes) -> None:
        self._settled = True
        self._counters.pending -= self.requests
        self._counters.requests[outcome] += self.requests
        took_s = time.monotonic() - self.queued_s
        self._counters.request_seconds.add(took_s, self.requests)
        if took_s > request_log.slow_s:
            for request_id in self.request_ids():
                request_log.slow(METHOD, took_s, peer=self._caller.peer, request_id=request_id)
        self._caller.answer(frames, self.requests)


def outcome_of(error: Exception) -> str:
    """As /metrics counts it."""
    if isinstance(error, LimitError):
        return "limit"
    if isinstance(error, RpcTimeoutError):
        return "timeout"
    return "bad_request" if isinstance(error, WireError) else "failed"


def is_told_in_response(error: Exception) -> bool:
    """Whether it is told by err_code of a Response, not as an error of the wire."""
    if isinstance(error, NotServingError):
        return False
    return isinstance(error, CubeError) and outcome_of(error) == "failed"


def failed_response(error: Exception) -> bytes:
    """A Response without predictions that tells the error."""
    return encode_ctr_response(_NO_PREDICTIONS, err_code=FAILED_CODE, err_msg=str(error))
