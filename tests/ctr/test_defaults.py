"""What stands for keys without a row: of missing keys always, of failed shards where allowed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr_serving.conf import read_engine_confs
from ctr_serving.defaults import Defaults, Mean
from ctr_serving.engine import Engine
from cube_core._native import encode_ctr_request, parse_ctr_response
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError, ModelError
from cube_core.wire.prpc_blocking import BlockingConnection
from tests.ctr.models import (
    EMBEDDING_DIM,
    SLOTS,
    direct_probabilities,
    embedding,
    publish,
    requests_of,
    write_manifest,
)
from tests.ctr.service import Ctr, Shards, ctr_running, shards_running, write_conf
from tests.waiting import wait_until

MEAN_ROW = [round(0.1 * index, 1) for index in range(EMBEDDING_DIM)]


def rows(defaults: Defaults, mean_row: list[float] | None = None) -> NDArray[np.float32] | None:
    return defaults.rows(3, "deep", 2, mean_row or [], where="manifest.json")


def test_zeros_are_told_as_nothing_to_do() -> None:
    assert rows(Defaults()) is None


def test_each_slot_has_its_own_default() -> None:
    found = rows(Defaults((0.5,), {(0, ""): Mean.ROW, (2, ""): (1.0, 2.0)}), [7.0, 8.0])
    assert found is not None
    assert found.tolist() == [[7, 8], [0.5, 0.5], [1, 2]]


@pytest.mark.parametrize(
    ("defaults", "message"),
    [
        (Defaults(Mean.ROW), "manifest.json: mean_row: is missing"),
        (Defaults(by_place={(3, ""): (1.0,)}), "names slot 3, the model has 3 slots"),
        (Defaults(by_place={(1, "wide"): (1.0,)}), "names dict 'wide', the model has deep"),
        (
            Defaults(by_place={(1, ""): (1.0, 2.0, 3.0)}),
            "gives 3 values for slot 1, its vectors of dict 'deep' have 2; dict_name says which",
        ),
    ],
)
def test_a_default_that_does_not_fit_the_model_refuses_it(defaults: Defaults, message: str) -> None:
    with pytest.raises(ModelError, match=re.escape(message)):
        rows(defaults)


def read(root: Path, extra: str) -> Defaults:
    write_conf(root, [8001, 8002], extra=extra)
    return read_engine_confs(root / "model_toolkit.prototxt", root / "cube.conf")[0].defaults


def test_the_configuration_names_slots_and_kinds(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """
        default_embeddings { kind: MEAN }
        default_embeddings { slot: 1 values: 0.25 values: -1 }
        default_embeddings { slot: 2 kind: ZEROS }
        default_embeddings { slot: 2 dict_name: "deep" values: 3 }
        default_embeddings { dict_name: "deep" values: 4 }
        """,
    )
    by_place = {(1, ""): (0.25, -1.0), (2, ""): (0.0,), (2, "deep"): (3.0,), (None, "deep"): (4.0,)}
    assert found == Defaults(Mean.ROW, by_place)


@pytest.mark.parametrize(
    ("slot", "dict_name", "value"),
    [(2, "deep", 3), (2, "wide", 0), (0, "deep", 4), (0, "wide", 7), (1, "deep", 0.25)],
)
def test_what_names_a_slot_and_a_dict_goes_first(slot: int, dict_name: str, value: float) -> None:
    by_place = {(1, ""): (0.25,), (2, ""): (0.0,), (2, "deep"): (3.0,), (None, "deep"): (4.0,)}
    row = Defaults(Mean.ROW, by_place).row(slot, dict_name, 2, [7.0, 7.0], where="manifest.json")
    assert row.tolist() == [value, value]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("default_embeddings { slot: 1 }", "default_embeddings[0].values: is missing"),
        ("default_embeddings { kind: MEAN values: 1 }", "beside a kind that needs none"),
        ("default_embeddings { slot: -1 values: 1 }", "default_embeddings[0].slot: -1 is negative"),
        (
            "default_embeddings { slot: 4 kind: MEAN } default_embeddings { slot: 4 kind: ZEROS }",
            "default_embeddings[1]: its slot and dict_name stand twice",
        ),
        ("failed_shards: IGNORE", "IGNORE"),
    ],
)
def test_a_bad_default_is_named_by_its_field(tmp_path: Path, extra: str, message: str) -> None:
    with pytest.raises(ConfError, match=re.escape(message)):
        read(tmp_path, extra)


def test_a_mean_row_of_another_width_is_refused(models: dict[int, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models[1], tmp_path / "model")
    write_manifest(model, "1_1", mean_row=[1.0, 2.0])
    with pytest.raises(ModelError, match="mean_row: 2 values for embedding_dim=10"):
        Engine.load(model)


def call(ctr: Ctr, ids: NDArray[np.int64], dense: NDArray[np.float32]) -> tuple[object, int, str]:
    connection = BlockingConnection(Endpoint.parse(ctr.address))
    service = "baidu.paddle_serving.predictor.ctr_prediction.CTRPredictionService"
    payload = encode_ctr_request(ids, dense)
    try:
        return parse_ctr_response(
            connection.call(service, "inference", payload, timeout_s=10).payload
        )
    finally:
        connection.close()


def check(found: object, model: Path, vectors: NDArray[np.float32], dense: object) -> None:
    wanted = direct_probabilities(model, vectors, np.asarray(dense, np.float32))
    np.testing.assert_allclose(np.asarray(found), wanted, atol=1e-6, rtol=0)


def test_missing_keys_get_the_default_of_their_slot(
    shards: Shards, models: dict[int, Path], tmp_path: Path
) -> None:
    extra = "default_embeddings { slot: 3 kind: MEAN } default_embeddings { slot: 5 values: 0.5 }"
    write_conf(tmp_path, shards.ports, extra=extra)
    model = shutil.copytree(models[1], tmp_path / "with_mean")
    write_manifest(model, "1_1", mean_row=MEAN_ROW)
    publish(tmp_path / "model", model)
    ids, dense = requests_of(3, missing=True)
    vectors = embedding(ids, seed=1)
    vectors[:, 3][ids[:, 3] < 0] = MEAN_ROW
    vectors[:, 5][ids[:, 5] < 0] = 0.5
    assert (ids[:, 3] < 0).any()
    assert (ids[:, 5] < 0).any()
    with ctr_running(tmp_path) as ctr:
        wait_until(ctr.model_version, what="the model served")
        found, err_code, err_msg = call(ctr, ids, dense)
        check(found, model, vectors, dense)
        assert (err_code, err_msg) == (0, "")
        assert ctr.status()["missing_keys_by_slot"] == (ids < 0).sum(axis=0).tolist()
        publish(tmp_path / "model", models[2])
        wait_until(
            lambda: "mean_row: is missing" in ctr.status()["problem"], what="the model refused"
        )


def test_a_degraded_answer_has_defaults_and_says_so(
    models: dict[int, Path], tmp_path: Path
) -> None:
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        extra = "failed_shards: DEGRADE default_embedding_value: 0.5"
        write_conf(tmp_path, shards.ports, timeout_ms=500, extra=extra)
        publish(tmp_path / "model", models[1])
        ids, dense = requests_of(4, missing=True)
        with ctr_running(tmp_path) as ctr:
            wait_until(ctr.model_version, what="model 1 served")
            vectors = embedding(ids, seed=1)
            vectors[ids < 0] = 0.5
            found, err_code, err_msg = call(ctr, ids, dense)
            check(found, models[1], vectors, dense)
            assert (err_code, err_msg) == (0, "")
            shards.roles[1].stop()
            of_failed_shard = ids % 2 == 1
            vectors[of_failed_shard] = 0.5
            found, err_code, err_msg = call(ctr, ids, dense)
            check(found, models[1], vectors, dense)
            assert err_code == 0
            assert err_msg.startswith(f"degraded: {of_failed_shard.sum()} keys have the default")
            assert f"127.0.0.1:{shards.ports[1]}" in err_msg
            status = ctr.status()
            assert status["requests"] == {"ok": 1, "degraded": 1}
            assert status["rows"] == 8
            assert status["failed_keys_by_slot"] == of_failed_shard.sum(axis=0).tolist()
            metrics = ctr.get("/metrics").text
            assert 'ctr_requests_total{outcome="degraded"} 1.0' in metrics
            assert f'ctr_failed_keys_total{{slot="{SLOTS - 1}"}}' in metrics
            # What none of its keys are of the failed shard is not degraded.
            assert call(ctr, ids - ids % 2, dense)[1:] == (0, "")
