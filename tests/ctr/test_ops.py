"""General ops: any slots, several ids a slot, several dicts, and ops that users write."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr_serving.assembly import assemble_op
from ctr_serving.conf import read_engine_confs
from ctr_serving.network import Network
from ctr_serving.ops import Op, OpCall, PredictionError, Ragged, SlotsOp, look_up
from ctr_serving.predictor import import_paddle
from ctr_serving.sources import OpenSources
from ctr_serving.trace import Trace
from cube_core._native import parse_ctr_response
from cube_core.errors import LimitError, ModelError, ShardError, WireError
from cube_core.wire.service import RpcContext
from cube_proto import ctr_prediction_pb2
from tests.ctr.networks import make_network, run_directly, write_network_manifest
from tests.ctr.op_bench import (
    DEEP,
    DENSE_DIM,
    FAILED_ID,
    LOOKUPS,
    WIDE,
    WRONG_ID,
    Bench,
    Counts,
    confs_of,
    feed_of,
    manifest,
    request_of,
)


@pytest.mark.parametrize(
    "counts",
    [
        [[1, 1, 1]],
        [[1, 1, 1]] * 7,
        [[2, 0, 3], [1, 1, 1], [0, 4, 1]],
        [[0, 0, 0]],
        [[3, 1, 2]] * 300,
    ],
)
async def test_slots_dicts_and_pooling_as_the_manifest_says(
    two_dicts: Path, tmp_path: Path, counts: Counts
) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, two_dicts)
    payload, by_slot, dense = request_of(counts)
    found, err_code, err_msg = await bench.ask(payload)
    assert (err_code, err_msg) == (0, "")
    wanted = run_directly(two_dicts, feed_of(by_slot, dense))
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
    ids_num = sum(map(sum, counts))
    assert sorted(bench.tables.asked) == [(DEEP, "7_7", ids_num), (WIDE, "7_8", ids_num)]


async def test_an_input_of_some_slots_in_another_order(two_dicts: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(two_dicts, model)
    order = [2, 0, 2]
    lookups = [each for each in LOOKUPS if each["dict"] == DEEP]
    lookups += [{"slot": slot, "dict": WIDE, "input": "wide"} for slot in order]
    write_network_manifest(model, "7_7", **{**manifest(), "lookups": lookups})
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, model)
    payload, by_slot, dense = request_of([[1, 1, 1]] * 5, ids=[99, 3, 4, 99, 5])
    feed = feed_of(by_slot, dense)
    feed["wide"] = feed["wide"][:, order]
    found, _, _ = await bench.ask(payload)
    np.testing.assert_allclose(found, run_directly(two_dicts, feed), atol=1e-6, rtol=0)
    assert bench.counters.missing_by_slot.tolist() == [4, 0, 0]


@pytest.mark.parametrize(("extra", "is_told"), [("", True), ("enable_batch_align: 1", False)])
async def test_of_batches_that_nobody_joins_the_number_is_told_to_do_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, extra: str, is_told: bool
) -> None:
    (conf,) = confs_of(tmp_path, extra)
    conf = replace(conf, runtime_thread_num=4, sparse_service="NONE")
    async with OpenSources() as sources:
        await assemble_op(conf, sources, rows_per_request_max=100, queue_timeout_s=1)
    told = "engine main: runtime_thread_num=4 does nothing without enable_batch_align: 1"
    assert (told in caplog.text) == is_told


@pytest.mark.parametrize("counts", [[[2, 1, 1], [1, 1, 1]], [[1, 1, 1], [1, 1, 1]]])
async def test_missing_ids_get_the_default_of_their_slot(
    two_dicts: Path, tmp_path: Path, counts: Counts
) -> None:
    extra = "default_embeddings { slot: 0 values: 0.25 }"
    bench = Bench(confs_of(tmp_path, extra), {"slots": SlotsOp}, two_dicts)
    payload, by_slot, dense = request_of(counts, ids=[99, 3])
    found, _, _ = await bench.ask(payload)
    feed = feed_of(by_slot, dense)
    feed["deep_0"][0] += 0.25
    feed["wide"][0, 0] += 0.25
    np.testing.assert_allclose(found, run_directly(two_dicts, feed), atol=1e-6, rtol=0)
    assert bench.counters.missing_by_slot.tolist() == [2, 0, 0]
    assert bench.trace.missing == [(0, 0, 99)] * 2
    assert len(bench.trace.row_seconds) == 2


async def test_each_dict_of_a_slot_has_its_own_default(two_dicts: Path, tmp_path: Path) -> None:
    extra = f"""
        default_embeddings {{ slot: 0 dict_name: "{DEEP}" values: 1 values: 2 values: 3 values: 4 }}
        default_embeddings {{ dict_name: "{WIDE}" values: -0.5 }}
    """
    bench = Bench(confs_of(tmp_path, extra), {"slots": SlotsOp}, two_dicts)
    payload, by_slot, dense = request_of([[1, 1, 1]], ids=[99])
    found, _, _ = await bench.ask(payload)
    feed = feed_of(by_slot, dense)
    feed["deep_0"][0] = [1, 2, 3, 4]
    feed["wide"][0, 0] = -0.5
    np.testing.assert_allclose(found, run_directly(two_dicts, feed), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            "default_embeddings { slot: 0 values: 1 values: 2 values: 3 values: 4 }",
            "gives 4 values for slot 0, its vectors of dict 'wide_dict' have 1; dict_name says",
        ),
        (
            'default_embeddings { dict_name: "other" kind: MEAN }',
            "names dict 'other', the model has deep_dict, wide_dict",
        ),
    ],
)
def test_a_default_that_does_not_fit_the_dicts_refuses_the_model(
    two_dicts: Path, tmp_path: Path, extra: str, message: str
) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        Network.load(two_dicts, confs_of(tmp_path, extra)[0].defaults)


async def test_a_failed_shard_is_an_error_or_told(two_dicts: Path, tmp_path: Path) -> None:
    payload, by_slot, dense = request_of([[1, 1, 1]], ids=[FAILED_ID])
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, two_dicts)
    with pytest.raises(ShardError, match="shard 1 is down"):
        await bench.ask(payload)
    bench = Bench(confs_of(tmp_path, "failed_shards: DEGRADE"), {"slots": SlotsOp}, two_dicts)
    found, err_code, err_msg = await bench.ask(payload)
    wanted = run_directly(two_dicts, feed_of(by_slot, dense))
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
    assert err_code == 0
    assert err_msg.count("degraded: 1 keys have the default vector") == 2
    assert bench.counters.failed_by_slot.tolist() == [2, 0, 0]


async def test_a_value_of_another_width_is_an_error(two_dicts: Path, tmp_path: Path) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, two_dicts)
    payload, _, _ = request_of([[1, 1, 1], [1, 1, 1]], ids=[1, WRONG_ID])
    with pytest.raises(PredictionError, match=r"key 60 \(instance 1, slot 0\) is not \d floats"):
        await bench.ask(payload)


@pytest.mark.parametrize(
    ("counts", "change", "message"),
    [
        ([[1, 1]], {}, "instance 0: 2 slots of sparse_ids, expected 3"),
        ([[1, 1, 1], [1, 1]], {}, "instance 1: 2 slots, instance 0 has 3"),
        ([[1, 1, 1]], {"ids_per_slot": [1, 1]}, "ids_per_slot counts 2 ids, sparse_ids has 3"),
        ([[1, 1, 1]], {"dense_ids": [1.0]}, "instance 0: 1 dense_ids, expected 2"),
    ],
)
async def test_instances_that_do_not_fit_are_named(
    two_dicts: Path, tmp_path: Path, counts: Counts, change: dict[str, Any], message: str
) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, two_dicts)
    request = ctr_prediction_pb2.Request.FromString(request_of(counts)[0])
    for field, values in change.items():
        request.instances[0].ClearField(field)
        getattr(request.instances[0], field).extend(values)
    with pytest.raises(WireError, match=re.escape(message)):
        await bench.ask(request.SerializeToString())


async def test_requests_that_are_none_or_too_large(two_dicts: Path, tmp_path: Path) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, two_dicts)
    assert (await bench.ask(b""))[1] == 0
    with pytest.raises(WireError, match="Request: "):
        await bench.ask(b"\xff\xff")
    with pytest.raises(LimitError, match=r"1001 instances, over rows.*1000"):
        await bench.ask(request_of([[1, 1, 1]] * 1001)[0])


async def test_a_request_of_too_many_slots_is_refused(two_dicts: Path, tmp_path: Path) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, two_dicts)
    request = ctr_prediction_pb2.Request()
    for _ in range(5):
        request.instances.add(ids_per_slot=[0] * 1_000_000)
    with pytest.raises(LimitError, match="more than 4194304 ids, slots and dense values"):
        await bench.ask(request.SerializeToString())


class First(Op):
    async def preprocess(self, call: OpCall) -> Any:
        return await look_up(call)

    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return fetch["fetch_name_0"][:, 1]


class Halved(Op):
    """Uses the result of the op before, and its second engine."""

    async def preprocess(self, call: OpCall) -> Any:
        call.note("halved")
        return await look_up(call, "other")

    async def inference(self, call: OpCall, feed: Any) -> Any:
        return await call.engine("other").run(feed)

    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return 0.5 * fetch["fetch_name_0"][:, 1] * call.inputs["first"]


async def test_ops_are_chained_over_several_engines(two_dicts: Path, tmp_path: Path) -> None:
    confs = confs_of(tmp_path, engines=("main", "other"))
    bench = Bench(confs, {"first": First, "halved": Halved}, two_dicts)
    payload, by_slot, dense = request_of([[1, 2, 1]] * 4)
    found, _, err_msg = await bench.ask(payload)
    clicks = run_directly(two_dicts, feed_of(by_slot, dense))[:, 1]
    np.testing.assert_allclose(found[:, 1], 0.5 * clicks * clicks, atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert err_msg == "halved"
    stages = [
        f"{name}.{stage}"
        for op, engine in (("first", "main"), ("halved", "other"))
        for name, stage in (
            (engine, "seek"),
            (op, "preprocess"),
            (engine, "queue"),
            (engine, "infer"),
            (op, "inference"),
            (op, "postprocess"),
        )
    ]
    assert list(bench.trace.seconds) == ["parse", *stages]


class Broken(Op):
    async def preprocess(self, call: OpCall) -> Any:
        return call.inputs["nothing"]


class WrongResult(First):
    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return np.zeros((3, 3))


class UnevenResult(First):
    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return [[0.1], [0.2, 0.3]]


class RaggedResult(First):
    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return {"probability": Ragged(np.zeros(2), np.arange(3))}


class SeveralResults(First):
    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return {0: fetch, "one": fetch}


class WrongEngine(First):
    async def inference(self, call: OpCall, feed: Any) -> Any:
        return await call.engine("nosuch").run(feed)


class WrongFeed(First):
    async def preprocess(self, call: OpCall) -> Any:
        feed = await look_up(call)
        return {name: values for name, values in feed.items() if name != "wide"}


class UnevenFeed(First):
    async def preprocess(self, call: OpCall) -> Any:
        feed: Any = await look_up(call)
        return {**feed, "wide": feed["wide"][:1]}


class UnknownDict(First):
    async def preprocess(self, call: OpCall) -> Any:
        return await call.engine().seek("nosuch", np.array([1]))


class NoIds(First):
    async def preprocess(self, call: OpCall) -> Any:
        return await call.engine().seek("deep_dict", np.array([1, 2], np.int32))


class NoIdsAtAll(First):
    async def preprocess(self, call: OpCall) -> Any:
        return await call.engine().seek("deep_dict", [1, 2])  # type: ignore[arg-type]


class NothingDone(Op):
    pass


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Broken, "op it: preprocess: KeyError: 'nothing'"),
        (WrongResult, "op it: its result is float64[3, 3], not probabilities [2, 2] or [2]"),
        (UnevenResult, "op it: its result is no array: setting an array element"),
        (RaggedResult, "op it: its result is no array: a Ragged is no array"),
        (SeveralResults, "op it: its result is [0, 'one'], not probabilities"),
        (WrongEngine, "op it: has engines ['main'], not 'nosuch'"),
        (WrongFeed, "the inputs fed are ['deep_0', 'deep_1', 'deep_2', 'dense'], those of"),
        (UnevenFeed, "the inputs have different numbers of instances"),
        (UnknownDict, "its model has no dict 'nosuch', only ['deep_dict', 'wide_dict']"),
        (NoIds, "op it: preprocess: TypeError: ids must be a numpy array int64[n] or uint64[n]"),
        (NoIdsAtAll, "uint64[n], not list"),
        (NothingDone, "op it: preprocess: NotImplementedError: NothingDone has no preprocess"),
    ],
)
async def test_what_an_op_does_wrong_is_told_to_the_caller(
    two_dicts: Path, tmp_path: Path, op: type[Op], message: str
) -> None:
    bench = Bench(confs_of(tmp_path), {"it": op}, two_dicts)
    with pytest.raises(PredictionError, match=re.escape(message)):
        await bench.ask(request_of([[1, 1, 1]] * 2)[0])


@pytest.mark.parametrize(
    "extra",
    [
        "",
        "enable_batch_align: 1",
        "enable_batch_align: 1 batch_infer_size: 6",
        "enable_batch_align: 1 batch_wait_us: 300",
    ],
)
async def test_requests_at_once_each_get_their_own(
    two_dicts: Path, tmp_path: Path, extra: str
) -> None:
    bench = Bench(confs_of(tmp_path, extra), {"slots": SlotsOp}, two_dicts)
    requests = [request_of([[1, 2, seed % 3]] * (1 + seed % 4), seed) for seed in range(12)]
    bad, _, _ = request_of([[1, 1, 1]], ids=[WRONG_ID])
    asked = [
        bench.workflow.predict(payload, RpcContext("peer"), Trace())
        for payload in [*(each[0] for each in requests), bad]
    ]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(answers[-1], PredictionError)
    for answer, (_, by_slot, dense) in zip(answers, requests, strict=False):
        assert isinstance(answer, bytes)
        wanted = run_directly(two_dicts, feed_of(by_slot, dense))
        np.testing.assert_allclose(parse_ctr_response(answer)[0], wanted, atol=1e-6, rtol=0)
    network = bench.engines["main"].slot.engine
    assert network is not None
    runs = sum(network.sizes.values())
    assert runs == 12 if not extra else runs < 12


class OftenNoFeed(SlotsOp):
    """Feeds what is no array for instances of one slot without ids, or two."""

    async def preprocess(self, call: OpCall) -> Any:
        feed: Any = await super().preprocess(call)
        empty = sum(not len(call.instances.slot(slot).values) for slot in range(3))
        if empty == 1:
            feed["wide"] = Ragged([0.0], np.array([0, 1]))  # type: ignore[arg-type]
        if empty == 2:
            feed[7] = feed.pop("wide")
        return feed


async def test_feeds_that_are_none_do_not_hold_up_the_others(
    two_dicts: Path, tmp_path: Path
) -> None:
    bench = Bench(confs_of(tmp_path, "enable_batch_align: 1"), {"it": OftenNoFeed}, two_dicts)
    counts = [[1, 1, 1], [0, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 1], [1, 1, 1]]
    requests = [request_of([each], seed) for seed, each in enumerate(counts)]
    asked = [
        bench.workflow.predict(payload, RpcContext("peer"), Trace()) for payload, _, _ in requests
    ]
    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 30)
    for answer in answers[1:3]:
        assert isinstance(answer, PredictionError)
        assert "input 'wide': its values are list, not an array" in str(answer)
    for answer in answers[3:5]:
        assert isinstance(answer, PredictionError)
        assert "input 7: its name is int, not str" in str(answer)
    for number in (0, 5):
        answer, (_, by_slot, dense) = answers[number], requests[number]
        assert isinstance(answer, bytes)
        wanted = run_directly(two_dicts, feed_of(by_slot, dense))
        np.testing.assert_allclose(parse_ctr_response(answer)[0], wanted, atol=1e-6, rtol=0)


class Hours(Op):
    """Fills an input of its own."""

    async def preprocess(self, call: OpCall) -> Any:
        return {**await look_up(call), "hour": call.instances.dense[:, :1] * 24}


async def test_models_with_the_table_inside_take_ids(tmp_path: Path) -> None:
    import_paddle()
    model = tmp_path / "model"
    make_network(model, 2, {"ids": 1, "dense": DENSE_DIM, "hour": 1}, ids=["ids"])
    write_network_manifest(
        model,
        "7_7",
        slots=1,
        dense_dim=DENSE_DIM,
        dense_input="dense",
        ids=[{"slot": 0, "input": "ids"}],
        inputs=[{"name": "hour", "shape": [1]}],
    )
    confs_of(tmp_path)
    toolkit = tmp_path / "model_toolkit.prototxt"
    toolkit.write_text(toolkit.read_text().replace("REMOTE", "NONE"))
    bench = Bench(read_engine_confs(toolkit, tmp_path / "none"), {"hours": Hours}, model)
    payload, by_slot, dense = request_of([[1]] * 5)
    found, _, _ = await bench.ask(payload)
    ids = np.array(by_slot, np.int64).reshape(5, 1)
    feed: dict[str, Any] = {"ids": ids, "dense": dense, "hour": dense[:, :1] * 24}
    np.testing.assert_allclose(found, run_directly(model, feed), atol=1e-6, rtol=0)
    assert bench.tables.asked == []


async def test_vectors_need_a_source(two_dicts: Path, tmp_path: Path) -> None:
    confs_of(tmp_path)
    toolkit = tmp_path / "model_toolkit.prototxt"
    toolkit.write_text(toolkit.read_text().replace("REMOTE", "NONE"))
    with pytest.raises(ModelError, match="dicts: the model takes vectors, but"):
        Bench(read_engine_confs(toolkit, tmp_path / "none"), {"slots": SlotsOp}, two_dicts)
