"""CTRPredictionService, one handler for all wires.

What the bytes of a request are at fault for is an error of the wire: bytes that do not parse, a
limit, the caller's own timeout. Everything else that keeps a prediction from being made is a
Response with err_code -1, no predictions and err_msg.
"""

from __future__ import annotations

import asyncio
import time

from google.protobuf.message import DecodeError

from ctr_serving.assembly import Predicts
from ctr_serving.counters import Counters
from ctr_serving.jobs import METHOD, failed_response, is_told_in_response, outcome_of
from ctr_serving.trace import Trace
from cube_core._native import encode_ctr_response, parse_ctr_response
from cube_core.errors import CubeError, OverloadError, WireError
from cube_core.request_log import request_log
from cube_core.wire.service import RpcContext, Service
from cube_proto import ctr_prediction_pb2

_SMOOTHING = 0.05
"""Weight of the last answer in the mean time from one to the next."""
_WAITED_SHARE_MAX = 0.5
"""Of the time that a caller leaves: who has to wait for longer is refused at once."""


class PredictionService:
    """Handlers of `inference` and `debug`.

    Args:
        requests_pending_max: requests under way at the same time; one more is an OverloadError. So
            is one whose caller would not wait for those that are.
        request_bytes_pending_max: bytes of these; one that comes on top of others and goes over it
            is an OverloadError.
    """

    def __init__(
        self,
        op: Predicts,
        counters: Counters,
        *,
        requests_pending_max: int,
        request_bytes_pending_max: int,
    ) -> None:
        self._op = op
        self._counters = counters
        self._pending_max = requests_pending_max
        self._bytes_max = request_bytes_pending_max
        self._bytes = 0
        self._pace = _Pace()

    def as_service(self) -> Service:
        """The service for every wire."""
        descriptor = ctr_prediction_pb2.DESCRIPTOR.services_by_name["CTRPredictionService"]
        return Service(descriptor, {"inference": self.inference, "debug": self.debug})

    async def inference(self, payload: bytes | memoryview, context: RpcContext) -> bytes:
        """Request bytes to Response bytes."""
        return await self._answer(payload, context, Trace())

    async def debug(self, payload: bytes | memoryview, context: RpcContext) -> bytes:
        """As `inference`; err_msg tells the version that answered, the time of each stage and of
        each instance, and the keys that were missing."""
        trace = Trace(is_detailed=True)
        start_s = time.perf_counter()
        response = await self._answer(payload, context, trace)
        trace.seconds["total"] = time.perf_counter() - start_s
        probabilities, err_code, err_msg = parse_ctr_response(response)
        if err_code:
            return response
        await trace.time_rows()
        return encode_ctr_response(probabilities, err_msg=f"{err_msg} {trace.text()}".strip())

    async def _answer(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        start_s = time.monotonic()
        try:
            return await self._counted(payload, context, trace)
        except asyncio.CancelledError:
            self._counters.requests["dropped"] += 1
            raise
        finally:
            self._counters.request_seconds.add(time.monotonic() - start_s)

    async def _counted(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        try:
            response = await self._admitted(payload, context, trace)
            outcome = "degraded" if trace.degraded else "ok"
        except WireError as error:
            is_well_formed = await _is_well_formed(payload)
            self._counters.requests[outcome_of(error)] += 1
            if not is_well_formed:
                raise
            request_log.failed(METHOD, error, peer=context.peer)
            return failed_response(error)
        except CubeError as error:
            outcome = outcome_of(error)
            if not is_told_in_response(error):
                self._counters.requests[outcome] += 1
                raise
            request_log.failed(METHOD, error, peer=context.peer)
            response = failed_response(error)
        except Exception:
            self._counters.requests["failed"] += 1
            raise
        self._counters.requests[outcome] += 1
        self._counters.rows += trace.rows if outcome != "failed" else 0
        return response

    async def _admitted(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        if self._counters.pending >= self._pending_max:
            raise OverloadError(f"requests_pending_max={self._pending_max} requests are under way")
        if self._bytes and self._bytes + len(payload) > self._bytes_max:
            raise OverloadError(
                f"requests of request_bytes_pending_max={self._bytes_max} bytes are under way"
            )
        # Before anything is spent on it: parsing what will be too late leaves less for the others.
        if context.deadline_s is not None and self._pace.is_too_late(context.deadline_s):
            raise OverloadError(
                f"{self._pace.under_way} requests are under way,"
                " and take longer than the caller's timeout leaves"
            )
        self._counters.pending += 1
        self._pace.under_way += 1
        self._bytes += len(payload)
        start_s = time.monotonic()
        try:
            answer = await self._op.predict(payload, context, trace)
            self._pace.answered(start_s)
            return answer
        finally:
            self._counters.pending -= 1
            self._bytes -= len(payload)
            self._pace.ended()


class _Pace:
    """How long an answer takes when others wait, from the end of one to that of the next: of the
    service alone, not of frames that go together, whose answers it does not see.

    Attributes:
        under_way: requests that wait for an answer.
    """

    def __init__(self) -> None:
        self.under_way = 0
        self._seconds = 0.0
        self._answered_s = 0.0

    def answered(self, start_s: float) -> None:
        """One of those under way is, which began at `start_s` on the monotonic clock."""
        now_s, others = time.monotonic(), self.under_way - 1
        if not others:
            # Else a stall would be believed for ever: who comes alone is all that is taken then.
            self._seconds = min(self._seconds, now_s - start_s)
        elif self._answered_s:
            self._seconds += _SMOOTHING * (now_s - self._answered_s - self._seconds)
        self._answered_s = now_s

    def ended(self) -> None:
        """One is under way no more, answered or not."""
        self.under_way -= 1
        if not self.under_way:
            # What comes after a pause says nothing about the pace.
            self._answered_s = 0.0

    def is_too_late(self, deadline_s: float) -> bool:
        """Whether one more behind these would have most of its time waited away."""
        left_s = deadline_s - time.monotonic()
        # Whose time is over already is told so.
        return left_s > 0 and self.under_way * self._seconds > _WAITED_SHARE_MAX * left_s


async def _is_well_formed(payload: bytes | memoryview) -> bool:
    """Whether the bytes are a Request, though not one with the right number of ids."""
    try:
        await asyncio.to_thread(ctr_prediction_pb2.Request.FromString, bytes(payload))
    except DecodeError:
        return False
    return True
