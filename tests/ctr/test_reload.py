"""A new pass is taken into service while requests go on; one that cannot be is refused."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr_serving.client import ConnectError, CtrClient, CubeError
from tests.ctr.models import (
    direct_probabilities,
    embedding,
    publish,
    requests_of,
    write_manifest,
)
from tests.ctr.service import Ctr, Shards, ctr_running, shards_running, write_conf, write_tables
from tests.waiting import wait_until

ROWS = 20
SWITCHES = int(os.environ.get("CUBE_TEST_SWITCHES", "3"))
"""More of them, such as 100, for a longer look."""


@pytest.fixture
def empty_ctr(two_versions: Shards, tmp_path: Path) -> Iterator[Ctr]:
    """A predictor without a model; models are published to <tmp_path>/model."""
    write_conf(tmp_path, two_versions.ports, extra="enable_batch_align: 1")
    with ctr_running(tmp_path) as ctr:
        yield ctr


def expected(models: dict[int, Path], seed: int) -> NDArray[np.float32]:
    ids, dense = requests_of(ROWS)
    return direct_probabilities(models[seed], embedding(ids, seed), dense)


def agrees(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> bool:
    return found.shape == wanted.shape and bool(np.abs(found - wanted).max() < 1e-6)


def test_starts_without_a_model_and_takes_it_when_it_comes(
    empty_ctr: Ctr, models: dict[int, Path], tmp_path: Path
) -> None:
    ctr = empty_ctr
    with ctr.client() as client:
        with pytest.raises(ConnectError, match="no model is loaded yet: ") as raised:
            client.predict(*requests_of(ROWS))
        assert raised.value.code == 2003, "brpc's clients turn to another server, too"
        for protocol in ("grpc", "http"):
            with ctr.client(protocol) as other, pytest.raises(ConnectError, match="no model is"):
                other.predict(*requests_of(ROWS))
        wait_until(lambda: "model/current" in ctr.status()["problem"], what="the reason")
        assert ctr.get("/health").status_code == 503
        assert ctr.get("/live").status_code == 200
        assert ctr.get("/ready").status_code == 503
        assert "model/current" in ctr.get("/ready").text
        publish(tmp_path / "model", models[1])
        wait_until(lambda: ctr.model_version() == "1_1", what="model 1 served")
        assert ctr.get("/ready").status_code == 200
        assert agrees(client.predict(*requests_of(ROWS)), expected(models, 1))


def serves(ctr: Ctr, seed: int) -> bool:
    return ctr.model_version() == f"{seed}_{seed}"


class Load:
    """Threads that ask all the time; every answer is kept."""

    def __init__(self, clients: list[CtrClient]) -> None:
        self._stopping = threading.Event()
        self.answers: list[NDArray[np.float32]] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(each,)) for each in clients]

    def _ask(self, client: CtrClient) -> None:
        request = requests_of(ROWS)
        with client:
            while not self._stopping.is_set():
                try:
                    self.answers.append(client.predict(*request))
                except CubeError as error:
                    self.failures.append(str(error))

    def wait_for_more(self, answers_num: int = 20) -> None:
        enough = len(self.answers) + answers_num
        wait_until(lambda: len(self.answers) > enough, what="more answers")

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()


def test_every_answer_is_of_one_pass_while_passes_are_switched(
    empty_ctr: Ctr, models: dict[int, Path], tmp_path: Path
) -> None:
    ctr = empty_ctr
    wanted = {seed: expected(models, seed) for seed in (1, 2)}
    assert not agrees(wanted[1], wanted[2])
    publish(tmp_path / "model", models[1])
    wait_until(ctr.model_version, what="model 1 served")
    load = Load([ctr.client("baidu_std"), ctr.client("http")])
    with load.running():
        for number in range(SWITCHES):
            seed = 2 - number % 2
            load.wait_for_more()
            publish(tmp_path / "model", models[seed])
            wait_until(partial(serves, ctr, seed), what=f"model {seed} served")
        load.wait_for_more()
    by_pass = {
        seed: sum(agrees(answer, wanted[seed]) for answer in load.answers) for seed in (1, 2)
    }
    assert load.failures == []
    assert by_pass[1] > 0
    assert by_pass[2] > 0
    assert sum(by_pass.values()) == len(load.answers)
    assert ctr.status()["switches"] == SWITCHES + 1


def damage_weights(model: Path) -> str:
    weights = model / "model.pdiparams"
    weights.write_bytes(weights.read_bytes()[:100])
    return "model.pdiparams"


def damage_dict(model: Path) -> str:
    write_manifest(model, "2_2", dict_name="other")
    return "dict_name: 'other' is not 'ctr_embedding'"


def damage_manifest(model: Path) -> str:
    (model / "manifest.json").unlink()
    return "manifest.json: cannot be read"


def damage_version(model: Path) -> str:
    """Names one that no shard has."""
    write_manifest(model, "3_3")
    return "3_3"


def test_a_model_that_cannot_be_served_leaves_the_old_one(
    empty_ctr: Ctr, models: dict[int, Path], tmp_path: Path
) -> None:
    ctr, deployed = empty_ctr, tmp_path / "model"
    publish(deployed, models[1])
    wait_until(ctr.model_version, what="model 1 served")
    with ctr.client() as client:
        for damage in (damage_weights, damage_dict, damage_manifest, damage_version):
            broken = shutil.copytree(models[2], tmp_path / damage.__name__)
            reason = damage(broken)
            publish(deployed, broken)
            wait_until(lambda: reason in ctr.status()["problem"], what=reason)  # noqa: B023
            assert agrees(client.predict(*requests_of(ROWS)), expected(models, 1))
            assert serves(ctr, 1)
        publish(deployed, models[2])
        wait_until(partial(serves, ctr, 2), what="model 2 served")
        assert ctr.status()["problem"] == ""
        assert agrees(client.predict(*requests_of(ROWS)), expected(models, 2))


def test_a_model_waits_for_its_version_on_the_shards(
    models: dict[int, Path], tmp_path: Path
) -> None:
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports)
        publish(tmp_path / "model", models[1])
        with ctr_running(tmp_path) as ctr, ctr.client() as client:
            wait_until(ctr.model_version, what="model 1 served")
            publish(tmp_path / "model", models[2])
            wait_until(lambda: "2_2" in ctr.status()["problem"], what="the reason")
            assert agrees(client.predict(*requests_of(ROWS)), expected(models, 1))
            write_tables(shards.data_dirs, "2_2", seed=2)
            shards.serve_version("2_2")
            wait_until(lambda: ctr.model_version() == "2_2", what="model 2 served")
            assert agrees(client.predict(*requests_of(ROWS)), expected(models, 2))
