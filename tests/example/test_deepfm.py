"""DeepFM is split over two dicts without changing what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr_serving.network_manifest import read_network_manifest
from cube_core._native import SequenceFileReader
from examples.criteo_ctr.export import ExportedPass
from examples.criteo_ctr.features import Rows, read_training_rows
from examples.criteo_ctr.generator import draw_rows, write_rows
from examples.criteo_ctr.models import DENSE_INPUT, InferenceModel, unsplit_probabilities
from examples.criteo_ctr.quality import quality
from examples.criteo_ctr.train import Trainer
from examples.deepfm_ctr.export import VECTORS_INPUT, WEIGHTS_INPUT, export_pass
from examples.deepfm_ctr.network import DeepFm


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    write_rows(path, draw_rows(8000, seed=11))
    return read_training_rows(path)


@pytest.fixture(scope="module")
def exported(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> ExportedPass:
    trainer = Trainer(DeepFm, seed=3)
    trainer.train_pass(rows.held_out()[0])
    return export_pass(trainer.network, tmp_path_factory.mktemp("output"), "7")


def table(directory: Path, dim: int) -> NDArray[np.float32]:
    """Rows of exported SequenceFiles by their keys."""
    rows = np.full((1_000_001, dim), np.nan, np.float32)
    for path in sorted(directory.glob("part-*")):
        reader = SequenceFileReader(str(path))
        while len((batch := reader.read(100_000))[0]):
            rows[batch[0].astype(np.int64)] = batch[1].view(np.float32)
    assert not np.isnan(rows).any()
    return rows


def test_the_planted_model_is_learnt(rows: Rows, exported: ExportedPass) -> None:
    _, test = rows.held_out()
    learnt = quality(test.labels, unsplit_probabilities(exported.unsplit_dir, test)[:, 1])
    assert learnt.auc > 0.6


def test_split_and_unsplit_models_agree(rows: Rows, exported: ExportedPass) -> None:
    _, test = rows.held_out()
    pass_dir = exported.embedding_dir.parent
    vectors = table(pass_dir / "ctr_embedding", 10)[test.sparse_ids]
    weights = table(pass_dir / "ctr_first_order", 1)[test.sparse_ids]
    model = InferenceModel(exported.dense_dir, [VECTORS_INPUT, WEIGHTS_INPUT, DENSE_INPUT])
    split = model.run(
        {
            VECTORS_INPUT: vectors.reshape(len(test), -1),
            WEIGHTS_INPUT: weights.reshape(len(test), -1),
            DENSE_INPUT: test.dense,
        }
    )
    assert split.shape == (len(test), 2)
    assert np.abs(split - unsplit_probabilities(exported.unsplit_dir, test)).max() < 1e-6


def test_the_manifest_is_that_of_general_ops(exported: ExportedPass) -> None:
    manifest = read_network_manifest(exported.dense_dir)
    assert manifest.version == "7_7"
    assert {name: use.dim for name, use in manifest.dicts.items()} == {
        "ctr_embedding": 10,
        "ctr_first_order": 1,
    }
    order = [(each.input, each.dict_name, each.slot) for each in manifest.lookups]
    assert order == [
        *((VECTORS_INPUT, "ctr_embedding", slot) for slot in range(26)),
        *((WEIGHTS_INPUT, "ctr_first_order", slot) for slot in range(26)),
    ]


def test_each_dict_has_its_donefile(exported: ExportedPass) -> None:
    pass_dir = exported.embedding_dir.parent
    lines = {}
    for name in ("ctr_embedding", "ctr_first_order"):
        path = pass_dir.parent / f"donefile_{name}" / "base.txt"
        (lines[name],) = map(json.loads, path.read_text().splitlines())
        assert lines[name]["input"] == str(pass_dir / name)
    assert lines["ctr_embedding"]["dense"] == str(pass_dir / "dense")
    assert "dense" not in lines["ctr_first_order"]
