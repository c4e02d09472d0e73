"""Requests that wait are joined; each gets its own answer, or its own error."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr_serving import conf, turns
from ctr_serving.conf import read_engine_confs
from ctr_serving.counters import Counters
from ctr_serving.engine import Engine
from ctr_serving.jobs import Features
from ctr_serving.model_slot import ModelSlot
from ctr_serving.op import CtrOp
from ctr_serving.trace import Trace
from ctr_serving.turns import JOINED_TURNS_MAX
from cube_api import STATUS_MISSING, STATUS_WRONG_WIDTH, SeekResult
from cube_core._native import parse_ctr_response
from cube_core.errors import (
    OverloadError,
    PredictionError,
    RpcTimeoutError,
    SeekTimeoutError,
    ShardError,
)
from cube_core.wire.service import RpcContext
from tests.ctr.models import direct_probabilities, embedding, requests_of
from tests.ctr.service import write_conf

SPOILT_KEY = 777_777
WRONG_KEY = 888_888


class Table:
    """Stands for the shards: rows of seed 1, held back until `gate` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.gate.set()
        self.keys_num: list[int] = []
        self.log_ids: list[int] = []
        self.slow = False

    async def seek(
        self, dict_name: str, keys: NDArray[np.int64], *, log_id: int, **_: Any
    ) -> SeekResult:
        self.keys_num.append(len(keys))
        self.log_ids.append(log_id)
        self.asked.set()
        await self.gate.wait()
        if self.slow:
            raise SeekTimeoutError("too slow")
        if SPOILT_KEY in keys:
            raise ShardError("shard 1 is down")
        status = np.where((keys < 0) | (keys >= 1000), STATUS_MISSING, 0).astype(np.int32)
        status[keys == WRONG_KEY] = STATUS_WRONG_WIDTH
        return SeekResult(embedding(keys, seed=1), status, "1_1")


class Bench:
    """Batches over one model, and what it should answer."""

    def __init__(
        self, root: Path, model: Path, *, extra: str, queue_timeout_s: float, threads: int = 1
    ) -> None:
        write_conf(root, [8001, 8002], extra=extra)
        toolkit = root / "model_toolkit.prototxt"
        toolkit.write_text(toolkit.read_text().replace("thread_num: 1", f"thread_num: {threads}"))
        engine_conf = read_engine_confs(root / "model_toolkit.prototxt", root / "cube.conf")[0]
        self.table = Table()
        self.slot = ModelSlot()
        self.counters = Counters(self.slot)
        self.model = model
        self.engine = Engine.load(model)
        cube: Any = self.table
        self.op = CtrOp(
            engine_conf,
            self.slot,
            cube,
            self.counters,
            rows_per_request_max=1000,
            queue_timeout_s=queue_timeout_s,
        )
        self.batches = self.op.batches

    def ask(
        self, ids: NDArray[np.int64], dense: NDArray[np.float32], deadline_s: float | None = None
    ) -> asyncio.Task[bytes]:
        context = RpcContext("peer", deadline_s=deadline_s)
        features = Features(np.ascontiguousarray(ids).reshape(-1), dense)
        return asyncio.ensure_future(self.batches.answer(self.engine, features, context, Trace()))

    def check(self, answer: bytes, ids: NDArray[np.int64], dense: NDArray[np.float32]) -> None:
        probabilities, err_code, _ = parse_ctr_response(answer)
        assert err_code == 0
        wanted = direct_probabilities(self.model, embedding(ids, seed=1), dense)
        np.testing.assert_allclose(probabilities, wanted, atol=5e-6, rtol=0)

    async def hold(self) -> list[asyncio.Task[bytes]]:
        """Fills the batches that may be under way, so that what comes next waits."""
        self.table.gate.clear()
        held = []
        for _ in range(JOINED_TURNS_MAX):
            held.append(self.ask(*requests_of(1)))
            await self.table.asked.wait()
            self.table.asked.clear()
        return held


@pytest.fixture
def bench(models: dict[int, Path], tmp_path: Path) -> Bench:
    return Bench(tmp_path, models[1], extra="enable_batch_align: 1", queue_timeout_s=10)


async def test_requests_that_wait_go_together(bench: Bench) -> None:
    held = await bench.hold()
    requests = [requests_of(count, seed=count, missing=True) for count in (1, 7, 2, 40)]
    asked = [bench.ask(*request) for request in requests]
    bench.table.gate.set()
    for answer, request in zip(await asyncio.gather(*asked), requests, strict=True):
        bench.check(answer, *request)
    await asyncio.gather(*held)
    assert bench.table.keys_num == [26, 26, 50 * 26]
    missing = sum(int((ids < 0).sum()) for ids, _ in requests)
    assert bench.counters.missing_by_slot.sum() == missing


async def test_a_batch_holds_batch_infer_size_rows(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "OVERLOAD_WAIT_S", 60.0)
    extra = "enable_batch_align: 1 batch_infer_size: 10"
    bench = Bench(tmp_path, models[1], extra=extra, queue_timeout_s=10)
    held = await bench.hold()
    requests = [requests_of(count, seed=count) for count in (4, 6, 1, 25)]
    asked = [bench.ask(*request) for request in requests]
    bench.table.gate.set()
    for answer, request in zip(await asyncio.gather(*asked, *held), requests, strict=False):
        bench.check(answer, *request)
    assert sorted(bench.table.keys_num) == [26, 26, 26, 10 * 26, 25 * 26]


async def test_a_batch_waits_until_it_is_full(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_an_hour_us = 1_800_000_000
    monkeypatch.setattr(conf, "WAIT_US_MAX", half_an_hour_us)
    extra = f"enable_batch_align: 1 batch_infer_size: 10 batch_wait_us: {half_an_hour_us}"
    bench = Bench(tmp_path, models[1], extra=extra, queue_timeout_s=10_000)
    requests = [requests_of(count, seed=count) for count in (4, 3, 2, 1)]
    asked = []
    for request in requests:
        assert not bench.table.keys_num
        asked.append(bench.ask(*request))
        await asyncio.wait(asked, timeout=0.01)
    for answer, request in zip(await asyncio.gather(*asked), requests, strict=True):
        bench.check(answer, *request)
    assert bench.table.keys_num == [10 * 26]


async def test_a_batch_waits_no_longer_than_it_is_told(
    models: dict[int, Path], tmp_path: Path
) -> None:
    extra = "enable_batch_align: 1 batch_wait_us: 10000"
    bench = Bench(tmp_path, models[1], extra=extra, queue_timeout_s=60)
    for _ in range(3):
        began_s = time.monotonic()
        request = requests_of(2)
        bench.check(await asyncio.wait_for(bench.ask(*request), 30), *request)
        assert time.monotonic() - began_s >= 0.01


async def test_runtime_thread_num_lets_more_batches_ask_the_shards(
    models: dict[int, Path], tmp_path: Path
) -> None:
    extra = "enable_batch_align: 1"
    bench = Bench(tmp_path, models[1], extra=extra, queue_timeout_s=10, threads=5)
    bench.table.gate.clear()
    asked = []
    for _ in range(5):
        asked.append(bench.ask(*requests_of(1)))
        await bench.table.asked.wait()
        bench.table.asked.clear()
    asked += [bench.ask(*requests_of(1)) for _ in range(3)]
    bench.table.gate.set()
    await asyncio.gather(*asked)
    assert bench.table.keys_num == [26] * 5 + [3 * 26]


async def test_without_batch_align_each_request_is_alone(
    models: dict[int, Path], tmp_path: Path
) -> None:
    bench = Bench(tmp_path, models[1], extra="", queue_timeout_s=10)
    requests = [requests_of(3, seed=seed) for seed in range(5)]
    answers = await asyncio.gather(*[bench.ask(*request) for request in requests])
    for answer, request in zip(answers, requests, strict=True):
        bench.check(answer, *request)
    assert bench.table.keys_num == [3 * 26] * 5


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (SPOILT_KEY, ShardError, "shard 1 is down"),
        (WRONG_KEY, PredictionError, r"value of key 888888 \(instance 2, slot 5\)"),
    ],
)
async def test_one_bad_request_spoils_no_other(
    bench: Bench, key: int, error: type[Exception], message: str
) -> None:
    held = await bench.hold()
    requests = [requests_of(4, seed=seed) for seed in range(3)]
    requests[1][0][2, 5] = key
    asked = [bench.ask(*request) for request in requests]
    bench.table.gate.set()
    with pytest.raises(error, match=message):
        await asked[1]
    for number in (0, 2):
        bench.check(await asked[number], *requests[number])
    await asyncio.gather(*held)


async def test_a_shard_that_is_too_slow_is_not_asked_again(bench: Bench) -> None:
    held = await bench.hold()
    asked = [bench.ask(*requests_of(1)) for _ in range(3)]
    bench.table.slow = True
    bench.table.gate.set()
    outcomes = await asyncio.gather(*asked, *held, return_exceptions=True)
    assert all(isinstance(outcome, SeekTimeoutError) for outcome in outcomes)
    assert bench.table.keys_num == [26, 26, 3 * 26]


async def test_who_waits_no_more_is_not_run(bench: Bench) -> None:
    held = await bench.hold()
    late = bench.ask(*requests_of(2), deadline_s=time.monotonic() - 1)
    gone = bench.ask(*requests_of(3))
    kept_request = requests_of(4)
    kept = bench.ask(*kept_request)
    await asyncio.wait([gone], timeout=0.01)
    gone.cancel()
    bench.table.gate.set()
    with pytest.raises(RpcTimeoutError):
        await late
    bench.check(await kept, *kept_request)
    await asyncio.gather(*held)
    assert gone.cancelled()
    assert bench.table.keys_num == [26, 26, 4 * 26]


async def test_a_timeout_during_the_seek_is_not_run(bench: Bench) -> None:
    bench.table.gate.clear()
    late = bench.ask(*requests_of(2), deadline_s=time.monotonic() + 0.05)
    kept_request = requests_of(4)
    kept = bench.ask(*kept_request)
    await asyncio.wait([late], timeout=0.06)
    bench.table.gate.set()
    with pytest.raises(RpcTimeoutError):
        await late
    bench.check(await kept, *kept_request)
    assert bench.table.keys_num == [6 * 26]
    assert bench.engine.sizes == {4: 1}


async def test_what_waited_too_long_is_refused(models: dict[int, Path], tmp_path: Path) -> None:
    bench = Bench(tmp_path, models[1], extra="enable_batch_align: 1", queue_timeout_s=0.02)
    held = await bench.hold()
    asked = bench.ask(*requests_of(1))
    await asyncio.wait([asked], timeout=0.05)
    bench.table.gate.set()
    with pytest.raises(OverloadError, match="waited longer than queue_timeout_ms=20"):
        await asked
    await asyncio.gather(*held)


async def test_large_requests_are_run_in_parts(bench: Bench) -> None:
    request = requests_of(600)
    bench.check(await bench.ask(*request), *request)
    assert bench.engine.sizes == {256: 2, 88: 1}


async def test_who_would_be_answered_too_late_is_not_begun(bench: Bench) -> None:
    slow = await bench.hold()
    await asyncio.wait(slow, timeout=0.5)
    bench.table.gate.set()
    await asyncio.gather(*slow)
    # A batch takes some 100 ms now. Who has waited for most of its time and has less left gives up.
    held = await bench.hold()
    late = bench.ask(*requests_of(2), deadline_s=time.monotonic() + 0.16)
    kept_request = requests_of(4)
    kept = bench.ask(*kept_request)
    await asyncio.wait([late], timeout=0.12)
    bench.table.gate.set()
    with pytest.raises(RpcTimeoutError):
        await late
    bench.check(await kept, *kept_request)
    await asyncio.gather(*held)
    assert bench.table.keys_num == [26, 26, 26, 26, 4 * 26]


async def test_the_newest_go_first_when_some_wait_too_long(
    models: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "OVERLOAD_TURNS", 1)
    extra = "enable_batch_align: 1 batch_infer_size: 4"
    bench = Bench(tmp_path, models[1], extra=extra, queue_timeout_s=10)
    held = await bench.hold()
    requests = [requests_of(rows, seed=rows) for rows in (4, 3, 2)]
    asked = [bench.ask(*request) for request in requests]
    await asyncio.wait(asked, timeout=0.1)
    bench.table.gate.set()
    for answer, request in zip(await asyncio.gather(*asked), requests, strict=True):
        bench.check(answer, *request)
    await asyncio.gather(*held)
    assert bench.table.keys_num[JOINED_TURNS_MAX:] == [2 * 26, 3 * 26, 4 * 26]


async def test_rows_are_timed_after_the_answers_of_the_batch(bench: Bench) -> None:
    held = await bench.hold()
    trace = Trace(is_detailed=True)
    requests = [requests_of(rows, seed=rows) for rows in (150, 2, 3)]
    features = Features(np.ascontiguousarray(requests[0][0]).reshape(-1), requests[0][1])
    told = asyncio.ensure_future(
        bench.batches.answer(bench.engine, features, RpcContext("peer"), trace)
    )
    others = [bench.ask(*request) for request in requests[1:]]
    bench.table.gate.set()
    for answer, request in zip(await asyncio.gather(told, *others), requests, strict=True):
        bench.check(answer, *request)
    await asyncio.gather(*held)
    assert trace.row_seconds == []
    assert list(trace.seconds) == ["queue", "seek", "infer"]
    sizes = dict(bench.engine.sizes)
    await trace.time_rows()
    assert len(trace.row_seconds) == 100
    assert bench.engine.sizes[1] == sizes.get(1, 0) + 100
