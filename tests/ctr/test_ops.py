"""General ops: any slots, several ids a slot, several dicts, and ops that users write."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ctr_serving.conf import EngineConf, read_engine_confs
from ctr_serving.counters import Counters
from ctr_serving.feeds import Feed, joined, parts, rows_of, signature
from ctr_serving.general_engine import GeneralEngine
from ctr_serving.model_slot import ModelSlot
from ctr_serving.network import Network
from ctr_serving.ops import Op, OpCall, PredictionError, Ragged, SlotsOp, look_up, pooled
from ctr_serving.ops._instances import parse_instances
from ctr_serving.predictor import import_paddle
from ctr_serving.trace import Trace
from ctr_serving.workflow import Workflow
from ctr_serving.workflow_conf import Node
from cube_api import STATUS_FAILED, STATUS_MISSING, STATUS_WRONG_WIDTH, SeekResult
from cube_core._native import parse_ctr_response
from cube_core.errors import LimitError, ModelError, ShardError, WireError
from cube_core.wire.service import RpcContext
from cube_proto import ctr_prediction_pb2
from tests.ctr.networks import make_network, run_directly, write_network_manifest
from tests.ctr.service import write_conf

DEEP, WIDE = "deep_dict", "wide_dict"
DIMS = {DEEP: 4, WIDE: 1}
SLOTS = 3
DENSE_DIM = 2
IDS_MAX = 50
"""Ids from here on are missing."""
WRONG_ID, FAILED_ID = 60, 61

Counts = Sequence[Sequence[int]]


def table(dict_name: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(DIMS[dict_name])
    return rng.normal(size=(IDS_MAX, DIMS[dict_name])).astype(np.float32)


class Tables:
    """A source: ids below 50 have rows."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    async def seek(
        self, dict_name: str, keys: NDArray[np.int64], *, version: str, dim: int, on_failure: str
    ) -> SeekResult:
        self.asked.append((dict_name, version, len(keys)))
        found = keys < IDS_MAX
        rows = np.where(found[:, None], table(dict_name)[np.where(found, keys, 0)], np.float32(0))
        status = np.where(found, 0, STATUS_MISSING).astype(np.int32)
        status[keys == WRONG_ID] = STATUS_WRONG_WIDTH
        errors: tuple[ShardError, ...] = ()
        if (keys == FAILED_ID).any():
            errors = (ShardError("shard 1 is down"),)
            if on_failure == "raise":
                raise errors[0]
            status[keys == FAILED_ID] = STATUS_FAILED
        return SeekResult(np.ascontiguousarray(rows), status, version, errors)

    async def prepare(self, dict_name: str, version: str, dim: int) -> object:
        return None


def request_of(
    counts: Counts, seed: int = 0, *, ids: Sequence[int] | None = None
) -> tuple[bytes, list[list[list[int]]], NDArray[np.float32]]:
    """Request bytes, ids by instance and slot, and dense values."""
    rng = np.random.default_rng(seed)
    dense = rng.random((len(counts), DENSE_DIM), np.float32)
    request = ctr_prediction_pb2.Request()
    by_slot: list[list[list[int]]] = []
    for row, row_counts in enumerate(counts):
        drawn = [rng.integers(0, IDS_MAX, count).tolist() for count in row_counts]
        if ids is not None:
            drawn[0][0] = ids[row]
        by_slot.append(drawn)
        request.instances.add(
            sparse_ids=[each for slot in drawn for each in slot],
            dense_ids=dense[row].tolist(),
            ids_per_slot=row_counts,
        )
    return request.SerializeToString(), by_slot, dense


def pool(dict_name: str, ids: list[int], how: str) -> NDArray[np.float32]:
    known = table(dict_name)
    rows = [known[each] if each < IDS_MAX else np.zeros(DIMS[dict_name]) for each in ids]
    total = np.sum(rows, axis=0) if rows else np.zeros(DIMS[dict_name])
    return np.asarray(total / max(len(rows), 1) if how == "mean" else total, np.float32)


LOOKUPS = [
    {"slot": 0, "dict": DEEP, "input": "deep_0"},
    {"slot": 1, "dict": DEEP, "input": "deep_1", "pooling": "mean"},
    {"slot": 2, "dict": DEEP, "input": "deep_2"},
    *[{"slot": slot, "dict": WIDE, "input": "wide"} for slot in range(SLOTS)],
]
WIDTHS = {"deep_0": 4, "deep_1": 4, "deep_2": 4, "wide": 3, "dense": DENSE_DIM}


def feed_of(by_slot: list[list[list[int]]], dense: NDArray[np.float32]) -> dict[str, Any]:
    feed = {
        f"deep_{slot}": np.stack(
            [pool(DEEP, row[slot], "mean" if slot == 1 else "sum") for row in by_slot]
        )
        for slot in range(SLOTS)
    }
    feed["wide"] = np.stack(
        [np.concatenate([pool(WIDE, slot, "sum") for slot in row]) for row in by_slot]
    )
    return {**feed, "dense": dense}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dicts of different widths, three slots, in format 2."""
    import_paddle()
    directory = tmp_path_factory.mktemp("model")
    make_network(directory, 1, WIDTHS)
    write_network_manifest(directory, "7_7", **manifest())
    return directory


def manifest() -> dict[str, Any]:
    return {
        "slots": SLOTS,
        "dense_dim": DENSE_DIM,
        "dense_input": "dense",
        "dicts": {DEEP: {"dim": 4, "mean_row": [0.5] * 4}, WIDE: {"dim": 1, "version": "7_8"}},
        "lookups": LOOKUPS,
    }


def confs_of(root: Path, extra: str = "", engines: Sequence[str] = ("main",)) -> list[EngineConf]:
    write_conf(root, [8001, 8002], extra=extra)
    path = root / "model_toolkit.prototxt"
    text = path.read_text()
    path.write_text(
        "".join(text.replace('name: "ctr_prediction"', f'name: "{name}"') for name in engines)
    )
    return read_engine_confs(path, root / "cube.conf")


class Bench:
    """A workflow of given ops over engines that all serve `model`."""

    def __init__(self, confs: Sequence[EngineConf], ops: Mapping[str, type[Op]], model: Path):
        slots = [ModelSlot[Any](conf.name) for conf in confs]
        self.counters = Counters(*slots)
        self.tables = Tables()
        source: Any = self.tables
        engines = {
            conf.name: GeneralEngine(conf, slot, source, self.counters, queue_timeout_s=10)
            for conf, slot in zip(confs, slots, strict=True)
        }
        for engine in engines.values():
            engine.slot.switch(engine.load(model))
        self.engines = engines
        groups = [
            [ReadyNode(op, name, "", tuple(engines), tuple(ops)[:index], ("", ""))]
            for index, (name, op) in enumerate(ops.items())
        ]
        self.workflow = Workflow(groups, engines, self.counters, rows_per_request_max=1000)
        self.trace = Trace()

    async def ask(self, payload: bytes) -> tuple[NDArray[np.float32], int, str]:
        self.trace = Trace(is_detailed=True)
        return parse_ctr_response(
            await self.workflow.predict(payload, RpcContext("peer"), self.trace)
        )


class ReadyNode(Node):
    """A node whose op needs no import."""

    def __init__(self, op: type[Op], *fields: Any) -> None:
        super().__init__(*fields)
        object.__setattr__(self, "_op", op)

    def load_op(self) -> Op:
        op: type[Op] = self.__dict__["_op"]
        return op(self.name, self.engines)


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
    model: Path, tmp_path: Path, counts: Counts
) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, model)
    payload, by_slot, dense = request_of(counts)
    found, err_code, err_msg = await bench.ask(payload)
    assert (err_code, err_msg) == (0, "")
    wanted = run_directly(model, feed_of(by_slot, dense))
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
    ids_num = sum(map(sum, counts))
    assert sorted(bench.tables.asked) == [(DEEP, "7_7", ids_num), (WIDE, "7_8", ids_num)]


async def test_missing_ids_get_the_default_of_their_slot(model: Path, tmp_path: Path) -> None:
    extra = "default_embeddings { slot: 0 values: 0.25 }"
    bench = Bench(confs_of(tmp_path, extra), {"slots": SlotsOp}, model)
    payload, by_slot, dense = request_of([[2, 1, 1], [1, 1, 1]], ids=[99, 3])
    found, _, _ = await bench.ask(payload)
    feed = feed_of(by_slot, dense)
    feed["deep_0"][0] += 0.25
    feed["wide"][0, 0] += 0.25
    np.testing.assert_allclose(found, run_directly(model, feed), atol=1e-6, rtol=0)
    assert bench.counters.missing_by_slot.tolist() == [2, 0, 0]
    assert bench.trace.missing == [(0, 0, 99)] * 2
    assert len(bench.trace.row_seconds) == 2


async def test_a_failed_shard_is_an_error_or_told(model: Path, tmp_path: Path) -> None:
    payload, by_slot, dense = request_of([[1, 1, 1]], ids=[FAILED_ID])
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, model)
    with pytest.raises(ShardError, match="shard 1 is down"):
        await bench.ask(payload)
    bench = Bench(confs_of(tmp_path, "failed_shards: DEGRADE"), {"slots": SlotsOp}, model)
    found, err_code, err_msg = await bench.ask(payload)
    wanted = run_directly(model, feed_of(by_slot, dense))
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
    assert err_code == 0
    assert err_msg.count("degraded: 1 keys have the default vector") == 2
    assert bench.counters.failed_by_slot.tolist() == [2, 0, 0]


async def test_a_value_of_another_width_is_an_error(model: Path, tmp_path: Path) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, model)
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
    model: Path, tmp_path: Path, counts: Counts, change: dict[str, Any], message: str
) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, model)
    request = ctr_prediction_pb2.Request.FromString(request_of(counts)[0])
    for field, values in change.items():
        request.instances[0].ClearField(field)
        getattr(request.instances[0], field).extend(values)
    with pytest.raises(WireError, match=re.escape(message)):
        await bench.ask(request.SerializeToString())


async def test_requests_that_are_none_or_too_large(model: Path, tmp_path: Path) -> None:
    bench = Bench(confs_of(tmp_path), {"slots": SlotsOp}, model)
    assert (await bench.ask(b""))[1] == 0
    with pytest.raises(WireError, match="Request: "):
        await bench.ask(b"\xff\xff")
    with pytest.raises(LimitError, match=r"1001 instances, over rows.*1000"):
        await bench.ask(request_of([[1, 1, 1]] * 1001)[0])


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


async def test_ops_are_chained_over_several_engines(model: Path, tmp_path: Path) -> None:
    confs = confs_of(tmp_path, engines=("main", "other"))
    bench = Bench(confs, {"first": First, "halved": Halved}, model)
    payload, by_slot, dense = request_of([[1, 2, 1]] * 4)
    found, _, err_msg = await bench.ask(payload)
    clicks = run_directly(model, feed_of(by_slot, dense))[:, 1]
    np.testing.assert_allclose(found[:, 1], 0.5 * clicks * clicks, atol=1e-6, rtol=0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    assert err_msg == "halved"
    stages = [f"{op}.{stage}" for op in ("first", "halved") for stage in STAGES]
    assert list(bench.trace.seconds) == ["parse", *stages]


STAGES = ("preprocess", "inference", "postprocess")


class Broken(Op):
    async def preprocess(self, call: OpCall) -> Any:
        return call.inputs["nothing"]


class WrongResult(First):
    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        return np.zeros((3, 3))


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


class NothingDone(Op):
    pass


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (Broken, "op it: preprocess: KeyError: 'nothing'"),
        (WrongResult, "op it: its result is float64[3, 3], not probabilities [2, 2] or [2]"),
        (WrongEngine, "op it: has engines ['main'], not 'nosuch'"),
        (WrongFeed, "the inputs fed are ['deep_0', 'deep_1', 'deep_2', 'dense'], those of"),
        (UnevenFeed, "the inputs have different numbers of instances"),
        (UnknownDict, "its model has no dict 'nosuch', only ['deep_dict', 'wide_dict']"),
        (NothingDone, "op it: preprocess: NotImplementedError: NothingDone has no preprocess"),
    ],
)
async def test_what_an_op_does_wrong_is_told_to_the_caller(
    model: Path, tmp_path: Path, op: type[Op], message: str
) -> None:
    bench = Bench(confs_of(tmp_path), {"it": op}, model)
    with pytest.raises(PredictionError, match=re.escape(message)):
        await bench.ask(request_of([[1, 1, 1]] * 2)[0])


@pytest.mark.parametrize(
    "extra", ["", "enable_batch_align: 1", "enable_batch_align: 1 batch_infer_size: 6"]
)
async def test_requests_at_once_each_get_their_own(model: Path, tmp_path: Path, extra: str) -> None:
    bench = Bench(confs_of(tmp_path, extra), {"slots": SlotsOp}, model)
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
        wanted = run_directly(model, feed_of(by_slot, dense))
        np.testing.assert_allclose(parse_ctr_response(answer)[0], wanted, atol=1e-6, rtol=0)
    network = bench.engines["main"].slot.engine
    assert network is not None
    runs = sum(network.sizes.values())
    assert runs == 12 if not extra else runs < 12


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


async def test_vectors_need_a_source(model: Path, tmp_path: Path) -> None:
    confs_of(tmp_path)
    toolkit = tmp_path / "model_toolkit.prototxt"
    toolkit.write_text(toolkit.read_text().replace("REMOTE", "NONE"))
    with pytest.raises(ModelError, match="dicts: the model takes vectors, but"):
        Bench(read_engine_confs(toolkit, tmp_path / "none"), {"slots": SlotsOp}, model)


def copied(model: Path, target: Path) -> Path:
    for path in model.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"output.fetch_name_0": np.full((4, 2), 0.3, np.float32)}, "answers another output.fetch"),
        ({"output.fetch_name_0": None}, "holds no output.<name> of ['fetch_name_0']"),
        ({"input.wide": None}, "check_rows.npz: cannot be run: "),
        ({"input.wide": np.zeros((3, 3), np.float32)}, "different numbers of instances"),
        ({"input.wide": np.zeros((4, 9), np.float32)}, "check_rows.npz: cannot be run: "),
    ],
)
def test_recorded_rows_refuse_another_model(
    model: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    _, by_slot, dense = request_of([[1, 1, 1]] * 4)
    feed = feed_of(by_slot, dense)
    recorded = {f"input.{name}": values for name, values in feed.items()}
    recorded |= {"output.fetch_name_0": run_directly(model, feed), **change}
    copy = copied(model, tmp_path)
    np.savez(
        copy / "check_rows.npz",
        **{name: values for name, values in recorded.items() if values is not None},
    )
    if not message:
        assert Network.load(copy).manifest.version == "7_7"
        return
    with pytest.raises(ModelError, match=re.escape(message)):
        Network.load(copy)


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.sampled_from(["sum", "mean"]),
)
@settings(max_examples=50, deadline=None)
def test_pooling(counts: list[int], how: Any) -> None:
    rng = np.random.default_rng(len(counts))
    values = rng.normal(size=(sum(counts), 3)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = pooled(Ragged(values, offsets), how)
    for row in range(len(counts)):
        mine = values[offsets[row] : offsets[row + 1]]
        wanted = mine.sum(axis=0) / (max(len(mine), 1) if how == "mean" else 1)
        np.testing.assert_allclose(found[row], wanted, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_instances_tell_the_ids_of_each_slot(counts: list[list[int]]) -> None:
    payload, by_slot, dense = request_of(counts, seed=sum(map(sum, counts)))
    instances = parse_instances(payload, 100)
    np.testing.assert_array_equal(instances.dense, dense)
    for slot in range(2):
        ids, offsets = instances.slot(slot)
        found = [ids[begin:end].tolist() for begin, end in pairwise(offsets)]
        assert found == [row[slot] for row in by_slot]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_feeds_are_joined_and_cut_without_loss(sizes: list[int], rows_max: int) -> None:
    feeds: list[Feed] = []
    for index, size in enumerate(sizes):
        counts = np.random.default_rng(index).integers(0, 3, size)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        ids = np.arange(offsets[-1]) + 100 * index
        feeds.append({"ids": Ragged(ids, offsets), "dense": np.full((size, 2), index)})
    together = joined(feeds)
    assert rows_of(together) == sum(sizes)
    assert signature(together) == signature(feeds[0])
    cut = list(parts(together, sum(sizes), rows_max))
    assert max(map(rows_of, cut)) <= rows_max
    again: Any = joined(cut)
    wanted: Any = together
    np.testing.assert_array_equal(again["ids"].values, wanted["ids"].values)
    np.testing.assert_array_equal(again["ids"].offsets, wanted["ids"].offsets)
    np.testing.assert_array_equal(again["dense"], wanted["dense"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookups": [{"slot": 3, "dict": DEEP, "input": "x"}]}, "lookups.0.slot: is 3, slots=3"),
        ({"lookups": [{"slot": 0, "dict": "x", "input": "x"}]}, "lookups.0.dict: 'x' is not in"),
        ({"dense_input": ""}, "dense_input, dense_dim: one stands without the other"),
        ({"ids": [{"slot": 0, "input": "wide"}]}, "input 'wide': is filled twice"),
        ({"dicts": {DEEP: {"dim": 4, "mean_row": [1]}, WIDE: {"dim": 1}}}, "mean_row: is not 4"),
        ({"dicts": {DEEP: {"dim": 4, "version": "../x"}, WIDE: {"dim": 1}}}, "version '../x'"),
        ({"dicts": {DEEP: {"dim": 5}, WIDE: {"dim": 1}}}, "run with zeros of manifest.json"),
        ({"lookups": LOOKUPS[1:]}, "the manifest lacks deep_0"),
        ({"outputs": ["nosuch"]}, "'nosuch' is no output of the model"),
        ({"outputs": []}, "outputs: "),
        ({"format": 3}, "format: "),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    model: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_network_manifest(copied(model, tmp_path), "7_7", **{**manifest(), **change})
    with pytest.raises(ModelError, match=re.escape(message)):
        Network.load(tmp_path)
