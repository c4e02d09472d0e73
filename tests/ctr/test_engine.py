"""A model is loaded whole and fits its manifest, or is refused with file and field."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr_serving.engine import Engine
from ctr_serving.network import Network
from cube_core._native import crc32c_file
from cube_core.errors import ModelError
from tests.ctr.models import (
    SPARSE_INPUTS,
    direct_probabilities,
    embedding,
    make_model,
    requests_of,
    write_manifest,
)


@pytest.fixture
def model(models: dict[int, Path], tmp_path: Path) -> Path:
    """A copy of model 1 to be broken."""
    return shutil.copytree(models[1], tmp_path / "model")


@pytest.mark.parametrize("rows_num", [1, 2, 50])
def test_predicts_what_paddle_answers(models: dict[int, Path], rows_num: int) -> None:
    engine = Engine.load(models[1])
    ids, dense = requests_of(rows_num)
    rows = embedding(ids, seed=1)
    expected = direct_probabilities(models[1], rows, dense)
    found = engine.predict(rows.reshape(rows_num, -1), dense)
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    assert engine.manifest.version == "1_1"


def test_nan_passes_through_to_its_own_row_only(models: dict[int, Path]) -> None:
    engine = Engine.load(models[1])
    ids, dense = requests_of(3)
    dense[1, 5] = np.nan
    rows = embedding(ids, seed=1).reshape(3, -1)
    probabilities = engine.predict(rows, dense)
    dense[1, 5] = 0
    clean = engine.predict(rows, dense)
    assert np.isfinite(probabilities[[0, 2]]).all()
    np.testing.assert_allclose(probabilities[[0, 2]], clean[[0, 2]], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": None}, "manifest.json: version: Field required"),
        ({"format": 2}, "manifest.json: format:"),
        ({"version": "../../x"}, "manifest.json: version '../../x' is not"),
        ({"sparse_inputs": SPARSE_INPUTS[:25]}, "sparse_inputs: 25 names for 26 slots"),
        ({"sparse_inputs": [*SPARSE_INPUTS[:25], "dense_input"]}, "a name stands twice"),
        ({"dense_input": "dense"}, "the model lacks dense, the manifest lacks dense_input"),
        ({"output": "softmax"}, "output: 'softmax' is no output of the model, which has fetch"),
        ({"embedding_dim": 9}, "embedding_dim=9 and dense_dim=13 of manifest.json"),
        ({"model": "../model"}, "manifest.json: model:"),
        ({"model": "other"}, "has neither other.json nor other.pdmodel"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    model: Path, changes: dict[str, Any], message: str
) -> None:
    write_manifest(model, **{"version": "1_1", **changes})
    with pytest.raises(ModelError) as raised:
        Engine.load(model)
    assert message in str(raised.value)
    assert str(model) in str(raised.value)


@pytest.mark.parametrize("name", ["manifest.json", "model.json", "model.pdiparams"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_file_is_refused_by_name(model: Path, name: str, damage: str) -> None:
    path = model / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"")
    with pytest.raises(ModelError) as raised:
        Engine.load(model)
    assert str(model) in str(raised.value)
    assert name.removesuffix(".json") in str(raised.value)


def test_an_output_of_another_width_is_refused(models: dict[int, Path], tmp_path: Path) -> None:
    make_model(tmp_path / "wide", seed=3, outputs=3)
    write_manifest(tmp_path / "wide", "3_3")
    with pytest.raises(ModelError, match=r"one row gives float32\[1, 3\], not float32\[1, 2\]"):
        Engine.load(tmp_path / "wide")


@pytest.mark.parametrize("load", [Engine.load, Network.load])
def test_a_network_for_one_row_only_is_refused(
    tmp_path: Path, load: Callable[[Path], object]
) -> None:
    make_model(tmp_path / "fixed", seed=3, batch=1)
    write_manifest(tmp_path / "fixed", "3_3")
    with pytest.raises(ModelError, match="None as the batch dimension") as raised:
        load(tmp_path / "fixed")
    assert str(raised.value).startswith(f"{tmp_path}/fixed: ")


def write_manifest_with_files(model: Path) -> None:
    paths = [model / "model.json", model / "model.pdiparams"]
    files = [
        {"name": path.name, "size": path.stat().st_size, "crc32c": crc32c_file(str(path))}
        for path in paths
    ]
    write_manifest(model, "1_1", files=files)


@pytest.mark.parametrize("name", ["model.json", "model.pdiparams"])
@pytest.mark.parametrize("damage", ["flipped bit", "longer", "missing"])
def test_files_are_compared_with_their_checksums(model: Path, name: str, damage: str) -> None:
    write_manifest_with_files(model)
    assert Engine.load(model).manifest.version == "1_1"
    path = model / name
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[len(content) // 2] ^= 1
    path.write_bytes(content + b"x" if damage == "longer" else content)
    if damage == "missing":
        path.unlink()
    said = {"flipped bit": "is corrupt", "longer": "the manifest says", "missing": "No such"}
    with pytest.raises(ModelError, match=said[damage]) as raised:
        Engine.load(model)
    assert str(raised.value).startswith(str(path))


def test_a_number_of_rows_that_comes_again_and_again_is_run_as_it_is(
    models: dict[int, Path],
) -> None:
    engine = Engine.load(models[1])
    engine.onednn_rows_min = 4
    assert [engine.rows_to_run(rows_num) for rows_num in (1, 3, 4, 8, 37, 250, 256, 300)] == [
        1, 3, 8, 8, 40, 256, 256, 300,
    ]  # fmt: skip
    for _ in range(1000):
        engine.rows_to_run(37)
    assert engine.rows_to_run(37) == 37
    assert engine.rows_to_run(36) == 40


@pytest.mark.parametrize("error", ["ImportError('libgomp.so.1')", "OSError('libgomp.so.1')"])
def test_a_broken_paddle_is_told_as_what_keeps_models_from_being_loaded(
    tmp_path: Path, error: str
) -> None:
    (tmp_path / "paddle.py").write_text(f"raise {error}\n")
    code = """
from ctr_serving.predictor import import_paddle
from cube_core.errors import ModelError
try:
    import_paddle()
except ModelError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    kind = error.partition("(")[0]
    assert f"paddle cannot be imported ({kind}: libgomp.so.1); install" in done.stdout
