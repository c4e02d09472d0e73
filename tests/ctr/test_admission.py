"""Requests that are refused before anything is spent on them."""

from __future__ import annotations

import asyncio
import time

import pytest

from ctr_serving.counters import Counters
from ctr_serving.model_slot import ModelSlot
from ctr_serving.service import PredictionService
from ctr_serving.trace import Trace
from cube_core.errors import OverloadError, PredictionError, WireError
from cube_core.wire.service import RpcContext
from cube_proto import ctr_prediction_pb2

WORK_S = 0.005
BYTES_MAX = 1 << 20
STALL_S = 0.5
STALLS = b"stalls"
FAILS = b"fails"
BREAKS = b"breaks"
MISFITS = ctr_prediction_pb2.Request(instances=[{}]).SerializeToString()


class OneByOne:
    """An op that works on one request after another, WORK_S each."""

    def __init__(self) -> None:
        self.begun = 0
        self._turn = asyncio.Lock()

    async def predict(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        self.begun += 1
        async with self._turn:
            await asyncio.sleep(STALL_S if payload == STALLS else WORK_S)
        if payload == FAILS:
            raise PredictionError("it fails")
        if payload == BREAKS:
            raise RuntimeError("nobody raises it on purpose")
        if payload == MISFITS:
            raise WireError("25 sparse_ids")
        return b""


def context_of(timeout_s: float | None) -> RpcContext:
    deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
    return RpcContext(peer="test", deadline_s=deadline_s)


@pytest.fixture
def op() -> OneByOne:
    return OneByOne()


@pytest.fixture
def counters() -> Counters:
    return Counters(ModelSlot("ctr"))


@pytest.fixture
def service(op: OneByOne, counters: Counters) -> PredictionService:
    return PredictionService(
        op, counters, requests_pending_max=1000, request_bytes_pending_max=BYTES_MAX
    )


async def test_who_would_not_wait_for_the_others_is_refused_at_once(
    op: OneByOne, service: PredictionService
) -> None:
    """Once the pace is known; with time enough, or with none told, it is taken."""
    busy = [asyncio.ensure_future(service.inference(b"", context_of(None))) for _ in range(200)]
    await asyncio.gather(*busy[:50])
    assert op.begun == 200
    left = 150
    with pytest.raises(OverloadError, match="take longer than the caller's timeout leaves"):
        await service.inference(b"", context_of(left * WORK_S / 10))
    assert op.begun == 200
    patient = [service.inference(b"", context_of(timeout_s)) for timeout_s in (None, 600.0)]
    await asyncio.gather(*busy, *patient)
    assert op.begun == 202


async def test_nobody_is_refused_when_nobody_waits(
    op: OneByOne, service: PredictionService
) -> None:
    """However slow the answers before were."""
    await asyncio.gather(*(service.inference(b"", context_of(None)) for _ in range(30)))
    await service.inference(b"", context_of(2 * WORK_S))
    assert op.begun == 31


async def ask_in_pairs(service: PredictionService, pairs: int) -> list[bytes | BaseException]:
    """Two requests at once, again and again, with ten times the time that both take."""
    answers: list[bytes | BaseException] = []
    for _ in range(pairs):
        pair = (service.inference(b"", context_of(20 * WORK_S)) for _ in range(2))
        answers += await asyncio.gather(*pair, return_exceptions=True)
    return answers


async def test_after_a_pause_requests_are_taken_as_before(service: PredictionService) -> None:
    """Also where the last one before it failed."""
    both = (service.inference(payload, context_of(None)) for payload in (b"", FAILS))
    await asyncio.gather(*both)
    await asyncio.sleep(3 * STALL_S)
    assert await ask_in_pairs(service, 10) == [b""] * 20


async def test_a_stall_is_forgotten(service: PredictionService) -> None:
    """When who is refused for it would have been answered in time."""
    for _ in range(3):
        stalled = (service.inference(each, context_of(None)) for each in (b"", STALLS, b""))
        await asyncio.gather(*stalled)
    assert (await ask_in_pairs(service, 10))[2:] == [b""] * 18


async def test_an_unforeseen_error_counts_as_failed(
    service: PredictionService, counters: Counters
) -> None:
    with pytest.raises(RuntimeError):
        await service.inference(BREAKS, context_of(None))
    assert counters.requests == {"failed": 1}


async def test_who_goes_away_while_its_request_is_looked_over_counts_once(
    service: PredictionService, counters: Counters
) -> None:
    asked = asyncio.ensure_future(service.inference(MISFITS, context_of(None)))
    await asyncio.sleep(WORK_S / 2)
    while not asked.done():
        # In the step in which the op has failed, and a thread parses the bytes again.
        if not counters.pending:
            asked.cancel()
        await asyncio.sleep(0)
    assert sum(counters.requests.values()) == 1


async def test_frames_that_go_together_are_not_waited_for(
    op: OneByOne, service: PredictionService, counters: Counters
) -> None:
    """They are answered at another pace, which the service does not see."""
    await asyncio.gather(*(service.inference(b"", context_of(None)) for _ in range(30)))
    counters.pending += 500
    await service.inference(b"", context_of(2 * WORK_S))
    assert op.begun == 31


async def test_bytes_under_way_are_bounded(op: OneByOne, service: PredictionService) -> None:
    """One request may be larger than the bound, alone."""
    await service.inference(bytes(2 * BYTES_MAX), context_of(None))
    under_way = [
        asyncio.ensure_future(service.inference(bytes(BYTES_MAX // 4), context_of(None)))
        for _ in range(4)
    ]
    await asyncio.sleep(0)
    for size in (BYTES_MAX, 1):
        with pytest.raises(OverloadError, match=f"request_bytes_pending_max={BYTES_MAX} bytes"):
            await service.inference(bytes(size), context_of(None))
    assert op.begun == 5
    await asyncio.gather(*under_way)
    await service.inference(bytes(BYTES_MAX), context_of(None))
    assert op.begun == 6
