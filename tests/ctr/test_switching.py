"""A hundred switches of tables and models under load: every answer is of one pass."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from ctr_serving.assembly import Assembly, assemble_op, assemble_workflow
from ctr_serving.cached_source import cache_status
from ctr_serving.client import CtrClient, CubeError
from ctr_serving.conf import EngineConf, read_engine_confs
from ctr_serving.frame_path import FramePath
from ctr_serving.reload import Reloader
from ctr_serving.service import PredictionService
from ctr_serving.sources import OpenSources
from ctr_serving.workflow_conf import Node
from cube_api.testing import FakeCluster
from cube_core.wire.limits import WireLimits
from cube_core.wire.server import RpcServer
from tests.ctr.models import (
    DENSE_DIM,
    DICT_NAME,
    EMBEDDING_DIM,
    ROW_COUNT,
    SLOTS,
    direct_probabilities,
    embedding,
    publish,
    requests_of,
)
from tests.ctr.networks import make_network, run_directly, write_network_manifest
from tests.ctr.service import SHARD_NUM, write_conf

SWITCHES = 100
ANSWERS_PER_SWITCH = 4
CLIENTS = 3
ROWS = 6
KEYS = np.arange(ROW_COUNT, dtype=np.uint64)
FIRST_ORDER = "first_order"

Assemble = Callable[[EngineConf, OpenSources], Any]


def fixed_op(conf: EngineConf, sources: OpenSources) -> Any:
    return assemble_op(conf, sources, rows_per_request_max=100, queue_timeout_s=30)


def general_op(conf: EngineConf, sources: OpenSources) -> Any:
    groups = [[Node("ctr_prediction", "SlotsOp", (conf.name,), (), ("", ""))]]
    return assemble_workflow([conf], groups, sources, rows_per_request_max=100, queue_timeout_s=30)


class Load(threading.Thread):
    """Asks all the time; every answer is kept."""

    def __init__(self, port: int, on_answer: Callable[[], None]) -> None:
        super().__init__()
        self.answers: list[NDArray[np.float32]] = []
        self.failures: list[str] = []
        self.stopping = threading.Event()
        self._port = port
        self._on_answer = on_answer

    def run(self) -> None:
        request = requests_of(ROWS)
        with CtrClient(f"127.0.0.1:{self._port}") as client:
            while not self.stopping.is_set():
                try:
                    self.answers.append(client.predict(*request))
                except CubeError as error:
                    self.failures.append(str(error))
                self._on_answer()


class Answers:
    """Lets the event loop wait for answers that come in threads."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._semaphore = asyncio.Semaphore(0)

    def add(self) -> None:
        self._loop.call_soon_threadsafe(self._semaphore.release)

    async def wait(self, count: int) -> None:
        for _ in range(count):
            await asyncio.wait_for(self._semaphore.acquire(), timeout=30)


@asynccontextmanager
async def serving(assembly: Assembly) -> AsyncIterator[int]:
    limits = WireLimits()
    service = PredictionService(
        assembly.op,
        assembly.counters,
        requests_pending_max=100,
        request_bytes_pending_max=1 << 20,
    )
    path = None
    if assembly.batches is not None:
        path = FramePath(
            assembly.engines[0].slot,
            assembly.batches,
            assembly.counters,
            limits,
            batch_rows_max=assembly.engines[0].conf.batch_rows_max,
            rows_per_request_max=100,
            requests_pending_max=100,
        )
    server = RpcServer(
        [service.as_service()], FastAPI, host="127.0.0.1", port=0, limits=limits, batch_path=path
    )
    await server.start()
    try:
        yield server.port
    finally:
        await server.drain(5.0)


def rows_of(dict_name: str, seed: int) -> NDArray[np.float32]:
    """What a dict holds in the pass of `seed`, in the order of KEYS."""
    if dict_name == DICT_NAME:
        return embedding(KEYS.view(np.int64), seed)
    return np.ascontiguousarray(embedding(KEYS.view(np.int64), seed + 10)[:, :1])


def make_two_dicts(root: Path) -> dict[int, Path]:
    """Models by seed with vectors of two dicts, of one pass each."""
    directories = {seed: root / "two_dicts" / str(seed) for seed in (1, 2)}
    for seed, directory in directories.items():
        widths = {"deep": SLOTS * EMBEDDING_DIM, "wide": SLOTS, "dense": DENSE_DIM}
        # Drawn so that the answers of the two passes are far from each other.
        make_network(directory, seed + 1, widths)
        write_network_manifest(
            directory,
            f"{seed}_{seed}",
            slots=SLOTS,
            dense_dim=DENSE_DIM,
            dense_input="dense",
            dicts={DICT_NAME: {"dim": EMBEDDING_DIM}, FIRST_ORDER: {"dim": 1}},
            lookups=[
                {"slot": slot, "dict": dict_name, "input": name}
                for dict_name, name in ((DICT_NAME, "deep"), (FIRST_ORDER, "wide"))
                for slot in range(SLOTS)
            ],
        )
    return directories


def wanted_of(directory: Path, seed: int, dict_names: Sequence[str]) -> NDArray[np.float32]:
    ids, dense = requests_of(ROWS)
    if len(dict_names) == 1:
        return direct_probabilities(directory, embedding(ids, seed), dense)
    deep, wide = (rows_of(each, seed)[ids].reshape(ROWS, -1) for each in dict_names)
    return run_directly(directory, {"deep": deep, "wide": wide, "dense": dense})


async def switch_tables(clusters: Sequence[FakeCluster], seed: int, answers: Answers) -> None:
    """Dict by dict and shard by shard, as in a deployment, with answers between."""
    for cluster in clusters:
        rows = rows_of(cluster.dict_name, seed)
        for shard in range(SHARD_NUM):
            await asyncio.to_thread(cluster.switch, KEYS, rows, f"{seed}_{seed}", shard=shard)
            await answers.wait(1)


@asynccontextmanager
async def load_on(port: int, answers: Answers) -> AsyncIterator[Sequence[Load]]:
    loads = [Load(port, answers.add) for _ in range(CLIENTS)]
    for load in loads:
        load.start()
    try:
        yield loads
    finally:
        for load in loads:
            load.stopping.set()
        for load in loads:
            await asyncio.to_thread(load.join)


def conf_of(root: Path, clusters: Sequence[FakeCluster], extra: str) -> EngineConf:
    write_conf(root, [], extra=f"enable_batch_align: 1 {extra}")
    dicts = [
        each.conf(timeout=20_000, retry=3)[each.dict_name].model_dump(mode="json")
        for each in clusters
    ]
    (root / "cube.conf").write_text(json.dumps(dicts))
    confs = read_engine_confs(root / "model_toolkit.prototxt", root / "cube.conf")
    return replace(
        confs[0],
        model_path=root / "model" / "current",
        reload_meta_path=root / "model" / "fluid_time_file",
    )


@pytest.mark.parametrize(
    ("assemble", "dict_names", "cache_mb"),
    [
        pytest.param(fixed_op, [DICT_NAME], 0, id="fixed_op"),
        pytest.param(general_op, [DICT_NAME], 0, id="general_op"),
        pytest.param(fixed_op, [DICT_NAME], 1, id="cache"),
        pytest.param(general_op, [DICT_NAME, FIRST_ORDER], 0, id="two_dicts"),
        pytest.param(general_op, [DICT_NAME, FIRST_ORDER], 1, id="two_dicts_and_caches"),
    ],
)
async def test_one_pass_a_prediction_under_a_hundred_switches(
    models: dict[int, Path],
    tmp_path: Path,
    assemble: Assemble,
    dict_names: Sequence[str],
    cache_mb: int,
) -> None:
    if len(dict_names) > 1:
        models = make_two_dicts(tmp_path)
    wanted = {seed: wanted_of(models[seed], seed, dict_names) for seed in (1, 2)}
    assert np.abs(wanted[1] - wanted[2]).min() > 1e-4
    with contextlib.ExitStack() as stack:
        clusters = [
            stack.enter_context(
                FakeCluster(KEYS, rows_of(each, 1), dict_name=each, shard_num=SHARD_NUM)
            )
            for each in dict_names
        ]
        async with OpenSources() as sources:
            conf = conf_of(tmp_path, clusters, f"cube_cache_mb: {cache_mb}")
            assembly = await assemble(conf, sources)
            engine = assembly.engines[0]
            # Files are read once for all switches; what else a switch is, is done each time.
            loaded = {seed: engine.load(models[seed]) for seed in (1, 2)}

            def load(directory: Path) -> Any:
                model = loaded[int(directory.name)]
                model.embedding = None
                return model

            reloader = Reloader(conf, engine.slot, engine.probe, load=load, interval_s=0.0)
            publish(tmp_path / "model", models[1])
            await reloader.poll()
            answers = Answers()
            async with serving(assembly) as port, load_on(port, answers) as loads:
                await answers.wait(ANSWERS_PER_SWITCH)
                for number in range(SWITCHES):
                    seed = 2 - number % 2
                    await switch_tables(clusters, seed, answers)
                    publish(tmp_path / "model", models[seed])
                    await reloader.poll()
                    assert engine.slot.problem == ""
                    await answers.wait(ANSWERS_PER_SWITCH)
    assert engine.slot.switch_count == SWITCHES + 1
    found = [answer for load in loads for answer in load.answers]
    by_pass = [
        sum(bool(np.abs(each - wanted[seed]).max() < 1e-6) for each in found) for seed in wanted
    ]
    assert [load.failures for load in loads] == [[]] * CLIENTS
    assert min(by_pass) >= SWITCHES
    assert sum(by_pass) == len(found)
    cache = cache_status(engine.slot.engine.embedding)
    assert (cache is not None) == bool(cache_mb)
    if cache is not None:
        # Every row is in it from the first switch on, and still none of another pass is served.
        assert cache["hits"] > cache["misses"] > 0
