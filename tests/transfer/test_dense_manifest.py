"""Dense models: that they belong to a pass, and that a patch without one takes that below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from cube_core.errors import ModelError
from cube_transfer.dense_manifest import check_dense, relabel_dense
from cube_transfer.source import PulledPass
from tests.transfer.http_directory import http_directory
from tests.transfer.passes import write_manifest

TWO_DICTS = {
    "format": 2,
    "version": "10_10",
    "dicts": {"vectors": {"dim": 8}, "weights": {"dim": 1, "version": "9_9"}},
    "model": "model",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model.json").write_text("{}")
    (directory / "model.pdiparams").write_bytes(b"weights")
    return directory


def _say(model: Path, fields: dict[str, Any]) -> None:
    (model / "manifest.json").write_text(json.dumps(fields))


def _check(model: Path, dict_name: str, version: str, dim: int) -> None:
    check_dense(model, dict_name=dict_name, version=version, value_bytes=dim * 4, where=model.name)


def test_a_model_of_several_dicts_belongs_to_a_pass_of_each(model: Path) -> None:
    _say(model, TWO_DICTS)
    _check(model, "vectors", "10_10", 8)
    _check(model, "weights", "9_9", 1)
    for arguments, words in (
        (("vectors", "11_11", 8), "version is 10_10, but the pass is 11_11"),
        (("weights", "10_10", 1), "version is 9_9, but the pass is 10_10"),
        (("vectors", "10_10", 4), "embedding_dim is 8 float32, .* 16 bytes"),
        (("others", "10_10", 8), "dict_name is vectors, weights, but the pass is others"),
    ):
        with pytest.raises(ModelError, match=words):
            _check(model, *arguments)


def test_a_patch_of_one_dict_leaves_the_versions_of_others(model: Path, tmp_path: Path) -> None:
    _say(model, {**TWO_DICTS, "dicts": {**TWO_DICTS["dicts"], "more": {"dim": 2}}})  # type: ignore[dict-item]
    relabel_dense(model, tmp_path / "patched", "vectors", "10_11")
    said = json.loads((tmp_path / "patched" / "manifest.json").read_bytes())
    assert {name: use["version"] for name, use in said["dicts"].items()} == {
        "vectors": "10_11",
        "weights": "9_9",
        "more": "10_10",
    }
    _check(tmp_path / "patched", "vectors", "10_11", 8)
    assert (tmp_path / "patched" / "model.pdiparams").read_bytes() == b"weights"
    assert json.loads((model / "manifest.json").read_bytes())["version"] == "10_10"


async def test_a_model_of_the_fluid_age(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "part-fc.w_0").write_bytes(b"weights")
    fields = {"dict_name": "d", "version": "1_1", "embedding_dim": 4, "model": "__model__"}
    _say(model, fields)
    with pytest.raises(ModelError, match="__model__ is missing"):
        _check(model, "d", "1_1", 4)
    (model / "__model__").write_bytes(b"program")
    _check(model, "d", "1_1", 4)

    pulled = PulledPass(tmp_path / "pulled")
    with http_directory(tmp_path) as source:
        async with httpx.AsyncClient(trust_env=False) as http:
            with pytest.raises(ModelError, match="files: must list what belongs to __model__"):
                await pulled.pull_dense(f"{source.url}/model", http)
            write_manifest(model)
            files = json.loads((model / "_manifest.json").read_bytes())["files"]
            _say(model, {**fields, "files": [*files, {"name": "__model__"}]})
            await pulled.pull_dense(f"{source.url}/model", http)
    names = sorted(path.name for path in pulled.dense.iterdir())
    assert names == ["__model__", "manifest.json", "part-fc.w_0"]
