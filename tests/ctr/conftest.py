"""Models, and a service that predicts with one of them, made once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ctr_serving.predictor import import_paddle
from tests.ctr.models import make_model, publish, write_manifest
from tests.ctr.networks import make_network, write_network_manifest
from tests.ctr.op_bench import WIDTHS, manifest
from tests.ctr.service import Ctr, Shards, ctr_running, shards_running, write_conf, write_tables
from tests.waiting import wait_until


@pytest.fixture(scope="package")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Model directories by seed: model 1 of embedding version 1_1, model 2 of 2_2."""
    import_paddle()
    root = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        make_model(root / str(seed), seed)
        write_manifest(root / str(seed), f"{seed}_{seed}")
    return {seed: root / str(seed) for seed in (1, 2)}


@pytest.fixture(scope="package")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    """Shards that serve version 1_1, drawn by seed 1."""
    with shards_running(tmp_path_factory.mktemp("shards"), "1_1", seed=1) as shards:
        yield shards


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shards]:
    """Shards with versions 1_1 and 2_2 loaded, and 3_3 not."""
    with shards_running(tmp_path_factory.mktemp("shards"), "1_1", seed=1) as shards:
        write_tables(shards.data_dirs, "2_2", seed=2)
        shards.serve_version("2_2")
        yield shards


@pytest.fixture(scope="package")
def ctr(
    shards: Shards, models: dict[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ctr]:
    """A predictor with model 1."""
    root = tmp_path_factory.mktemp("ctr")
    write_conf(root, shards.ports)
    publish(root / "model", models[1])
    with ctr_running(root, "--rows_per_request_max=2000") as ctr:
        wait_until(lambda: ctr.get("/ready").status_code == 200, what="model 1 served")
        yield ctr


@pytest.fixture(scope="package")
def two_dicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two dicts of different widths and three slots, in format 2."""
    import_paddle()
    directory = tmp_path_factory.mktemp("two_dicts")
    make_network(directory, 1, WIDTHS)
    write_network_manifest(directory, "7_7", **manifest())
    return directory
