"""Workflows over models of two dicts of different widths, and what they should answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.conf import EngineConf, read_engine_confs
from ctr_serving.counters import Counters
from ctr_serving.general_engine import GeneralEngine
from ctr_serving.model_slot import ModelSlot
from ctr_serving.ops import Op
from ctr_serving.trace import Trace
from ctr_serving.workflow import Workflow
from ctr_serving.workflow_conf import Node
from cube_api import STATUS_FAILED, STATUS_MISSING, STATUS_WRONG_WIDTH, SeekResult
from cube_core._native import parse_ctr_response
from cube_core.errors import ShardError
from cube_core.wire.service import RpcContext
from cube_proto import ctr_prediction_pb2
from tests.ctr.service import write_conf

DEEP, WIDE = "deep_dict", "wide_dict"
DIMS = {DEEP: 4, WIDE: 1}
SLOTS = 3
DENSE_DIM = 2
IDS_MAX = 50
"""Ids from here on are missing."""
WRONG_ID, FAILED_ID, OTHER_FAILED_ID = 60, 61, 62

Counts = Sequence[Sequence[int]]


def table(dict_name: str) -> NDArray[np.float32]:
    rng = np.random.default_rng(DIMS[dict_name])
    return rng.normal(size=(IDS_MAX, DIMS[dict_name])).astype(np.float32)


class Tables:
    """A source: ids below 50 have rows; held back until `gate` is set."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.log_ids: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.news = asyncio.Event()

    async def seek(
        self,
        dict_name: str,
        keys: NDArray[np.int64],
        *,
        version: str,
        dim: int,
        on_failure: str,
        log_id: int,
    ) -> SeekResult:
        self.asked.append((dict_name, version, len(keys)))
        self.log_ids.append(log_id)
        self.news.set()
        await self.gate.wait()
        found = keys < IDS_MAX
        rows = np.where(found[:, None], table(dict_name)[np.where(found, keys, 0)], np.float32(0))
        status = np.where(found, 0, STATUS_MISSING).astype(np.int32)
        status[keys == WRONG_ID] = STATUS_WRONG_WIDTH
        errors: list[ShardError] = []
        for shard, failed_id in enumerate((FAILED_ID, OTHER_FAILED_ID), start=1):
            if (keys == failed_id).any():
                errors.append(ShardError(f"shard {shard} is down"))
                status[keys == failed_id] = STATUS_FAILED
        if errors and on_failure == "raise":
            raise errors[0]
        return SeekResult(np.ascontiguousarray(rows), status, version, tuple(errors))

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


def manifest() -> dict[str, Any]:
    """Of a model with two dicts of different widths and three slots."""
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
        response = await self.workflow.predict(payload, RpcContext("peer"), self.trace)
        await self.trace.time_rows()
        return parse_ctr_response(response)


class ReadyNode(Node):
    """A node whose op needs no import."""

    def __init__(self, op: type[Op], *fields: Any) -> None:
        super().__init__(*fields)
        object.__setattr__(self, "_op", op)

    def load_op(self) -> Op:
        op: type[Op] = self.__dict__["_op"]
        return op(self.name, self.engines)
