"""The forms a model comes in, and what it must answer before it is served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr_serving.check_rows import CHECK_ROWS_NAME
from ctr_serving.engine import Engine
from ctr_serving.network import Network
from cube_core.errors import ModelError
from tests.ctr.models import (
    PDMODEL_OUTPUT,
    direct_probabilities,
    embedding,
    make_model,
    requests_of,
    write_manifest,
)

FUSED = {"model": "fused", "input": "embeddings", "output": "fetch_name_0"}


@pytest.fixture
def fused(models: dict[int, Path], tmp_path: Path) -> Path:
    """A copy of model 1 with a fused network of the same weights."""
    model = shutil.copytree(models[1], tmp_path / "model")
    make_model(model, seed=1, name="fused", fused_input="embeddings")
    write_manifest(model, "1_1", fused=FUSED)
    return model


@pytest.mark.parametrize("rows_num", [1, 3, 50, 256])
def test_the_fused_form_answers_as_the_split_one(
    fused: Path, models: dict[int, Path], rows_num: int
) -> None:
    ids, dense = requests_of(rows_num)
    rows = embedding(ids, seed=1)
    # The split program is not read when there is a fused one.
    (fused / "model.json").unlink()
    engine = Engine.load(fused)
    np.testing.assert_allclose(
        engine.predict(rows.reshape(rows_num, -1), dense),
        direct_probabilities(models[1], rows, dense),
        atol=1e-6,
        rtol=0,
    )


def test_both_predictors_answer_alike(fused: Path) -> None:
    engine = Engine.load(fused)
    ids, dense = requests_of(20)
    rows = embedding(ids, seed=1).reshape(20, -1)
    answers = []
    for engine.onednn_rows_min in (1, 21):
        answers.append(engine.predict(rows, dense))
    np.testing.assert_allclose(answers[0], answers[1], atol=1e-6, rtol=0)
    assert engine.sizes == {20: 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other"}, "has neither other.json nor other.pdmodel"),
        ({"input": "vectors"}, "the model lacks vectors, the manifest lacks embeddings"),
        ({"output": "softmax"}, "output: 'softmax' is no output of the model"),
        ({"model": "../fused"}, "manifest.json: fused.model:"),
    ],
)
def test_a_fused_form_that_does_not_fit_is_refused(
    fused: Path, changes: dict[str, str], message: str
) -> None:
    write_manifest(fused, "1_1", fused={**FUSED, **changes})
    with pytest.raises(ModelError) as raised:
        Engine.load(fused)
    assert message in str(raised.value)


def record(model: Path, **changes: Any) -> None:
    ids, dense = requests_of(4)
    rows = embedding(ids, seed=1)
    arrays: dict[str, Any] = {
        "embeddings": rows.reshape(4, -1),
        "dense": dense,
        "probabilities": direct_probabilities(model, rows, dense),
    }
    arrays.update(changes)
    np.savez(model / CHECK_ROWS_NAME, **arrays)


def test_recorded_rows_let_the_right_model_through(fused: Path) -> None:
    record(fused)
    assert Engine.load(fused).manifest.version == "1_1"
    assert Network.load(fused).manifest.version == "1_1"


def test_recorded_rows_are_those_of_general_ops_too(fused: Path) -> None:
    write_manifest(fused, "1_1")
    record(fused)
    assert Network.load(fused).manifest.version == "1_1"
    record(fused, probabilities=np.full((4, 2), 0.25, np.float32))
    with pytest.raises(ModelError, match="answers another output"):
        Network.load(fused)
    record(fused, dense=np.zeros((4, 12), np.float32))
    with pytest.raises(ModelError, match="cannot be run"):
        Network.load(fused)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": np.full((4, 2), 0.25, np.float32)}, "row 0: the model answers"),
        ({"probabilities": np.full((4, 2), np.nan, np.float32)}, "row 0: the model answers"),
        ({"dense": np.zeros((4, 12), np.float32)}, "dense is [4, 12], not [4, 13]"),
        ({"embeddings": np.zeros((0, 260), np.float32)}, "embeddings is [0, 260]"),
        ({"dense": np.array([{}])}, "is no file of recorded rows"),
    ],
)
def test_recorded_rows_refuse_another_model(
    fused: Path, changes: dict[str, Any], message: str
) -> None:
    record(fused, **changes)
    with pytest.raises(ModelError) as raised:
        Engine.load(fused)
    assert message in str(raised.value)
    assert CHECK_ROWS_NAME in str(raised.value)


def test_a_damaged_file_of_recorded_rows_is_refused(fused: Path) -> None:
    (fused / CHECK_ROWS_NAME).write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ModelError, match=r"check_rows\.npz: is no file of recorded rows"):
        Engine.load(fused)


@pytest.fixture
def paddle_2(tmp_path: Path) -> Path:
    """Model 1 as Paddle 2 saved it: model.pdmodel and model.pdiparams."""
    model = tmp_path / "paddle_2"
    make_model(model, seed=1, is_pdmodel=True)
    write_manifest(model, "1_1", output=PDMODEL_OUTPUT)
    assert {path.name for path in model.iterdir()} == {
        "manifest.json",
        "model.pdiparams",
        "model.pdmodel",
    }
    return model


@pytest.mark.parametrize("rows_num", [1, 7, 50])
def test_a_model_of_paddle_2_answers_as_one_of_paddle_3(
    paddle_2: Path, models: dict[int, Path], rows_num: int
) -> None:
    ids, dense = requests_of(rows_num)
    rows = embedding(ids, seed=1)
    wanted = direct_probabilities(models[1], rows, dense)
    engine = Engine.load(paddle_2)
    for engine.onednn_rows_min in (1, 256):
        found = engine.predict(rows.reshape(rows_num, -1), dense)
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
    assert Network.load(paddle_2).manifest.outputs == (PDMODEL_OUTPUT,)


@pytest.mark.parametrize(
    ("name", "bytes_num", "message"),
    [
        ("model.pdmodel", 0, "model.pdmodel: is no program of Paddle: it has no block"),
        ("model.pdmodel", 1000, "model.pdmodel: is no program of Paddle: "),
        ("model.pdiparams", 100, "model.pdiparams: "),
        ("model.pdiparams", None, "model.pdiparams: is missing"),
    ],
)
def test_a_damaged_model_of_paddle_2_is_refused(
    paddle_2: Path, name: str, bytes_num: int | None, message: str
) -> None:
    damaged = paddle_2 / name
    content = damaged.read_bytes()
    damaged.unlink()
    if bytes_num is not None:
        damaged.write_bytes(content[:bytes_num])
    with pytest.raises(ModelError, match=message):
        Engine.load(paddle_2)
