"""Seeks and runs of a workflow that wait are joined; each request gets its own answer, or error."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr_serving import turns
from ctr_serving.feeds import Ragged
from ctr_serving.network import Network
from ctr_serving.ops import SlotsOp
from ctr_serving.trace import Trace
from cube_core._native import parse_ctr_response
from cube_core.errors import LimitError, PredictionError, RpcTimeoutError, ShardError
from cube_core.wire.service import RpcContext
from tests.ctr.networks import run_directly, write_network_manifest
from tests.ctr.op_bench import (
    DEEP,
    FAILED_ID,
    OTHER_FAILED_ID,
    SLOTS,
    WIDE,
    WRONG_ID,
    Bench,
    confs_of,
    feed_of,
    manifest,
    request_of,
)

ALIGNED = "enable_batch_align: 1"
MISSING_ID = 99

Asked = tuple[bytes, list[list[list[int]]], Any]


def bench_of(root: Path, model: Path, extra: str = ALIGNED, **changes: Any) -> Bench:
    return Bench(
        [replace(conf, **changes) for conf in confs_of(root, extra)], {"op": SlotsOp}, model
    )


def single(rows: int, seed: int, *, first_id: int | None = None) -> Asked:
    """One id a slot; with `first_id` in slot 0 of the first row."""
    ids = None if first_id is None else [first_id, *[1] * (rows - 1)]
    return request_of([[1] * SLOTS] * rows, seed, ids=ids)


def ask(bench: Bench, request: Asked, deadline_s: float | None = None) -> asyncio.Task[bytes]:
    context = RpcContext("peer", deadline_s=deadline_s)
    return asyncio.ensure_future(bench.workflow.predict(request[0], context, Trace()))


def check(model: Path, answer: bytes, request: Asked) -> None:
    probabilities, err_code, _ = parse_ctr_response(answer)
    assert err_code == 0
    wanted = run_directly(model, feed_of(*request[1:]))
    np.testing.assert_allclose(probabilities, wanted, atol=1e-6, rtol=0)


async def hold(bench: Bench, seeks: int = turns.JOINED_TURNS_MAX) -> list[asyncio.Task[bytes]]:
    """Fills the seeks that may be under way, so that what comes next waits."""
    bench.tables.gate.clear()
    held = []
    for _ in range(seeks):
        held.append(ask(bench, single(1, 0)))
        asked = len(bench.tables.asked) + 2
        while len(bench.tables.asked) < asked:
            bench.tables.news.clear()
            await bench.tables.news.wait()
    return held


def network_of(bench: Bench) -> Network:
    network = bench.engines["main"].slot.engine
    assert network is not None
    return network


# ------------------------------------------------------------------------------ seeks


async def test_seeks_of_one_step_go_together(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    requests = [single(1 + seed % 3, seed) for seed in range(64)]
    answers = await asyncio.gather(*[ask(bench, each) for each in requests])
    for answer, request in zip(answers, requests, strict=True):
        check(two_dicts, answer, request)
    keys_num = sum(1 + seed % 3 for seed in range(64)) * SLOTS
    assert sorted(bench.tables.asked) == [(DEEP, "7_7", keys_num), (WIDE, "7_8", keys_num)]


async def test_a_seek_is_found_by_the_number_of_its_first_request(
    two_dicts: Path, tmp_path: Path
) -> None:
    bench = bench_of(tmp_path, two_dicts)
    asked = [
        bench.workflow.predict(single(1, 0)[0], RpcContext("peer", log_id), Trace())
        for log_id in (0, 71, 72)
    ]
    await asyncio.gather(*asked)
    assert bench.tables.log_ids == [71, 71]


async def test_without_batch_align_each_seek_is_alone(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts, "")
    await asyncio.gather(*[ask(bench, single(1, seed)) for seed in range(5)])
    assert len(bench.tables.asked) == 2 * 5


async def test_seeks_that_wait_go_together(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    held = await hold(bench)
    requests = [single(1, seed) for seed in range(9)]
    asked = [ask(bench, each) for each in requests]
    await asyncio.wait(asked, timeout=0.01)
    assert sum(each() for each in bench.counters.queues) == 9
    bench.tables.gate.set()
    for answer, request in zip(await asyncio.gather(*asked), requests, strict=True):
        check(two_dicts, answer, request)
    await asyncio.gather(*held)
    assert sorted(keys for _, _, keys in bench.tables.asked) == [3] * 4 + [27] * 2


async def test_runtime_thread_num_lets_more_seeks_be_under_way(
    two_dicts: Path, tmp_path: Path
) -> None:
    bench = bench_of(tmp_path, two_dicts, runtime_thread_num=5)
    held = await hold(bench, seeks=5)
    asked = [ask(bench, single(1, seed)) for seed in range(3)]
    bench.tables.gate.set()
    await asyncio.gather(*asked, *held)
    assert sorted(keys for _, _, keys in bench.tables.asked) == [3] * 10 + [9] * 2


@pytest.mark.parametrize("degrades", [False, True])
async def test_what_is_wrong_with_keys_stays_with_their_request(
    two_dicts: Path, tmp_path: Path, degrades: bool
) -> None:
    bench = bench_of(tmp_path, two_dicts, degrades=degrades)
    good = [single(2, seed) for seed in range(3)]
    missing = single(2, 5, first_id=MISSING_ID)
    wrong = single(2, 6, first_id=WRONG_ID)
    failed = single(2, 7, first_id=FAILED_ID)
    requests = [good[0], wrong, good[1], failed, missing, good[2]]
    answers = await asyncio.gather(*[ask(bench, each) for each in requests], return_exceptions=True)
    for number in (0, 2, 4, 5):
        answer = answers[number]
        assert isinstance(answer, bytes)
        check(two_dicts, answer, requests[number])
        assert parse_ctr_response(answer)[2] == ""
    assert isinstance(answers[1], PredictionError)
    assert "key 60 (instance 0, slot 0)" in str(answers[1])
    assert len(bench.tables.asked) == 2
    assert bench.counters.missing_by_slot.tolist() == [2, 0, 0]
    if not degrades:
        assert isinstance(answers[3], ShardError)
        return
    assert isinstance(answers[3], bytes)
    _, err_code, err_msg = parse_ctr_response(answers[3])
    assert err_code == 0
    assert err_msg.count("1 keys have the default vector") == 2


async def test_each_is_told_of_its_own_shard(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    ids = (FAILED_ID, 1, OTHER_FAILED_ID)
    requests = [single(1, seed, first_id=first_id) for seed, first_id in enumerate(ids)]
    answers = await asyncio.gather(*[ask(bench, each) for each in requests], return_exceptions=True)
    assert [str(answers[0]), str(answers[2])] == ["shard 1 is down", "shard 2 is down"]
    assert isinstance(answers[1], bytes)
    check(two_dicts, answers[1], requests[1])


async def test_each_model_asks_for_its_own_version(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    newer = tmp_path / "newer"
    shutil.copytree(two_dicts, newer)
    write_network_manifest(newer, "8_8", **manifest())
    held = await hold(bench)
    old = [ask(bench, single(1, seed)) for seed in range(4)]
    await asyncio.wait(old, timeout=0.01)
    engine = bench.engines["main"]
    engine.slot.switch(engine.load(newer))
    new = [ask(bench, single(1, seed)) for seed in range(3)]
    bench.tables.gate.set()
    await asyncio.gather(*held, *old, *new)
    deep = [(version, keys) for name, version, keys in bench.tables.asked if name == DEEP]
    assert deep[turns.JOINED_TURNS_MAX :] == [("7_7", 12), ("8_8", 9)]


async def test_who_waits_no_more_is_not_asked_for(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    held = await hold(bench)
    late = ask(bench, single(2, 1), deadline_s=time.monotonic() + 0.02)
    gone = ask(bench, single(3, 2))
    kept_request = single(4, 3)
    kept = ask(bench, kept_request)
    await asyncio.wait([gone], timeout=0.05)
    gone.cancel()
    await asyncio.wait([gone])
    bench.tables.gate.set()
    with pytest.raises(RpcTimeoutError):
        await late
    check(two_dicts, await kept, kept_request)
    await asyncio.gather(*held)
    assert sorted(keys for _, _, keys in bench.tables.asked) == [3] * 4 + [12] * 2
    assert not bench.counters.missing_by_slot.any()


# ------------------------------------------------------------------------------ runs


def fed(rows: int, seed: int) -> dict[str, Any]:
    return dict(feed_of(*single(rows, seed)[1:]))


def run(
    bench: Bench, feed: Any, deadline_s: float | None = None, trace: Trace | None = None
) -> asyncio.Task[Any]:
    served = bench.engines["main"].served()
    context = RpcContext("peer", deadline_s=deadline_s)
    return asyncio.ensure_future(served.runs.run(served.network, feed, context, trace or Trace()))


async def test_runs_that_are_joined_have_few_sizes(
    two_dicts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = bench_of(tmp_path, two_dicts)
    monkeypatch.setattr(network_of(bench), "_onednn_rows_min", 2)
    for sizes in ((1, 7, 2, 1), (4, 5), (8, 8)):
        feeds = [fed(rows, seed) for seed, rows in enumerate(sizes)]
        fetches = await asyncio.gather(*[run(bench, feed) for feed in feeds])
        for fetch, feed in zip(fetches, feeds, strict=True):
            wanted = run_directly(two_dicts, feed)
            np.testing.assert_allclose(fetch["fetch_name_0"], wanted, atol=1e-6, rtol=0)
    assert network_of(bench).sizes == {16: 3}
    await run(bench, fed(11, 0))
    assert network_of(bench).sizes == {16: 3, 11: 1}


async def test_an_overload_keeps_the_newest_fast(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts, f"{ALIGNED} batch_infer_size: 4")
    feeds = {rows: fed(rows, rows) for rows in (4, 3, 2)}
    asked = {rows: run(bench, feed) for rows, feed in feeds.items()}
    await asyncio.sleep(0)
    for call in bench.engines["main"].served().runs:
        call.queued_s -= 2 * turns.OVERLOAD_WAIT_S
    for rows, feed in feeds.items():
        found = (await asked[rows])["fetch_name_0"]
        np.testing.assert_allclose(found, run_directly(two_dicts, feed), atol=1e-6, rtol=0)
    assert list(network_of(bench).sizes) == [2, 3, 4]


async def test_who_is_late_is_dropped_before_the_run(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts, f"{ALIGNED} batch_wait_us: 10000")
    began_s = time.monotonic()
    late = run(bench, fed(2, 1), deadline_s=began_s + 0.005)
    kept = run(bench, fed(3, 2))
    with pytest.raises(RpcTimeoutError, match="too little of the caller's timeout"):
        await late
    np.testing.assert_allclose(
        (await kept)["fetch_name_0"], run_directly(two_dicts, fed(3, 2)), atol=1e-6, rtol=0
    )
    assert network_of(bench).sizes == {3: 1}


async def test_what_waited_too_long_is_refused(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    engine = bench.engines["main"]
    waited = run(bench, fed(2, 1))
    await asyncio.sleep(0)
    (call,) = engine.served().runs
    call.queued_s -= 11
    with pytest.raises(LimitError, match="waited longer than queue_timeout_ms=10000"):
        await waited
    assert not network_of(bench).sizes


async def test_a_feed_that_cannot_be_joined_fails_alone(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    no_array: Any = [1.0, 2.0]
    feeds: list[Any] = [fed(2, 0), fed(2, 1), fed(2, 2), fed(2, 3)]
    feeds[1]["wide"] = Ragged(no_array, np.array([0, 1, 2]))
    feeds[2]["wide"] = feeds[2]["wide"].astype("datetime64[s]")
    outcomes = await asyncio.gather(*[run(bench, feed) for feed in feeds], return_exceptions=True)
    assert isinstance(outcomes[1], PredictionError)
    assert isinstance(outcomes[2], Exception)
    for number in (0, 3):
        outcome = outcomes[number]
        assert isinstance(outcome, dict)
        wanted = run_directly(two_dicts, feeds[number])
        np.testing.assert_allclose(outcome["fetch_name_0"], wanted, atol=1e-6, rtol=0)


async def test_rows_are_timed_after_the_answer(two_dicts: Path, tmp_path: Path) -> None:
    bench = bench_of(tmp_path, two_dicts)
    trace = Trace(is_detailed=True)
    others = [run(bench, fed(2, seed)) for seed in range(3)]
    await run(bench, fed(150, 9), trace=trace)
    assert all(other.done() for other in others)
    assert trace.row_seconds == []
    assert list(trace.seconds) == ["main.queue", "main.infer"]
    await trace.time_rows()
    assert len(trace.row_seconds) == 100
    assert network_of(bench).sizes[1] == 100
