"""Training with real Paddle learns, is reproducible, and exports what serving needs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cube_core._native import SequenceFileReader, crc32c_file
from cube_core.errors import BuildError, ModelError
from examples.criteo_ctr import export
from examples.criteo_ctr.export import ExportedPass, export_pass
from examples.criteo_ctr.features import Rows, read_training_rows
from examples.criteo_ctr.generator import draw_rows, write_rows
from examples.criteo_ctr.models import (
    DENSE_INPUT,
    FUSED_INPUT,
    FUSED_STEM,
    SPARSE_INPUTS,
    InferenceModel,
    unsplit_probabilities,
)
from examples.criteo_ctr.network import CtrNetwork
from examples.criteo_ctr.quality import quality
from examples.criteo_ctr.train import Trainer

ROW_COUNT = 20_000
DICT_NAME = "ctr_embedding"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    path = tmp_path_factory.mktemp("rows") / "rows.tsv"
    write_rows(path, draw_rows(ROW_COUNT, seed=11))
    return read_training_rows(path)


class Trained:
    """Two passes of one job, exported."""

    def __init__(self, rows: Rows, output_dir: Path) -> None:
        self.output_dir = output_dir
        self.train, self.test = rows.held_out()
        self.steps: list[int] = []
        trainer = Trainer(CtrNetwork, seed=3)
        trainer.train_pass(self.train, self.steps.append)
        self.first = export_pass(trainer.network, output_dir, "1", dict_name=DICT_NAME)
        trainer.train_pass(self.train)
        self.second = export_pass(trainer.network, output_dir, "2", dict_name=DICT_NAME)


@pytest.fixture(scope="module")
def trained(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(rows, tmp_path_factory.mktemp("output"))


def test_a_pass_is_one_epoch(trained: Trained) -> None:
    assert sum(trained.steps) == len(trained.train) == ROW_COUNT * 9 // 10


def test_the_planted_model_is_learnt(trained: Trained) -> None:
    learnt = quality(
        trained.test.labels, unsplit_probabilities(trained.first.unsplit_dir, trained.test)[:, 1]
    )
    constant = quality(trained.test.labels, np.full(len(trained.test), trained.train.labels.mean()))
    assert constant.auc == 0.5
    assert learnt.auc > 0.65
    assert learnt.log_loss < constant.log_loss


def test_equal_seeds_give_equal_probabilities(trained: Trained, tmp_path: Path) -> None:
    trainer = Trainer(CtrNetwork, seed=3)
    trainer.train_pass(trained.train)
    again = export_pass(trainer.network, tmp_path, "1", dict_name=DICT_NAME)
    assert unsplit_probabilities(again.unsplit_dir, trained.test) == pytest.approx(
        unsplit_probabilities(trained.first.unsplit_dir, trained.test), abs=1e-6
    )


def test_split_and_unsplit_models_agree(trained: Trained) -> None:
    for exported in (trained.first, trained.second):
        table = _embedding(exported)
        assert table.shape == (1_000_001, 10)
        model = InferenceModel(exported.dense_dir, [*SPARSE_INPUTS, DENSE_INPUT])
        feeds = {
            name: table[trained.test.sparse_ids[:, slot]] for slot, name in enumerate(SPARSE_INPUTS)
        }
        split = model.run({**feeds, DENSE_INPUT: trained.test.dense})
        unsplit = unsplit_probabilities(exported.unsplit_dir, trained.test)
        fused = InferenceModel(exported.dense_dir, [FUSED_INPUT, DENSE_INPUT], FUSED_STEM).run(
            {
                FUSED_INPUT: table[trained.test.sparse_ids].reshape(len(trained.test), -1),
                DENSE_INPUT: trained.test.dense,
            }
        )
        assert np.abs(fused - split).max() < 1e-6
        assert split.shape == (len(trained.test), 2)
        assert split.sum(axis=1) == pytest.approx(1.0, abs=1e-6)
        assert np.abs(split - unsplit).max() < 1e-6


def test_passes_differ_visibly(trained: Trained) -> None:
    first, second = (
        unsplit_probabilities(exported.unsplit_dir, trained.test)
        for exported in (trained.first, trained.second)
    )
    batches = np.abs(first - second)[: len(first) // 8 * 8].reshape(-1, 16)
    assert batches.max(axis=1).min() > 1e-3


def test_manifests_describe_the_pass(trained: Trained) -> None:
    embedding = json.loads((trained.second.embedding_dir / "_manifest.json").read_text())
    for entry in embedding["files"]:
        path = trained.second.embedding_dir / entry["name"]
        assert (path.stat().st_size, crc32c_file(str(path))) == (entry["size"], entry["crc32c"])
    dense = json.loads((trained.second.dense_dir / "manifest.json").read_text())
    output, files = dense.pop("output"), dense.pop("files")
    mean_row = _embedding(trained.second).mean(axis=0, dtype=np.float64)
    assert dense.pop("mean_row") == pytest.approx(mean_row, abs=1e-6)
    listed = {entry["name"]: (entry["size"], entry["crc32c"]) for entry in files}
    assert listed == {
        path.name: (path.stat().st_size, crc32c_file(str(path)))
        for path in trained.second.dense_dir.iterdir()
        if path.name != "manifest.json"
    }
    assert set(listed) == {
        "check_rows.npz",
        "fused.json",
        "fused.pdiparams",
        "model.json",
        "model.pdiparams",
    }
    assert dense == {
        "format": 1,
        "dict_name": DICT_NAME,
        "version": "2_2",
        "slots": 26,
        "embedding_dim": 10,
        "dense_dim": 13,
        "sparse_inputs": [f"embedding_{slot}.tmp_0" for slot in range(26)],
        "dense_input": "dense_input",
        "model": "model",
        "fused": {"model": "fused", "input": "embeddings", "output": output},
    }
    assert output == InferenceModel(trained.second.dense_dir, [*SPARSE_INPUTS, DENSE_INPUT]).output


def test_donefile_names_both_passes_and_nothing_temporary_is_left(trained: Trained) -> None:
    lines = (trained.output_dir / "donefile" / "base.txt").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "id": pass_id,
            "key": pass_id,
            "input": str(trained.output_dir / pass_id / "embedding"),
            "dense": str(trained.output_dir / pass_id / "dense"),
        }
        for pass_id in ("1", "2")
    ]
    assert {path.name for path in trained.output_dir.iterdir()} == {"1", "2", "donefile"}


def test_a_pass_is_announced_only_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Trainer(CtrNetwork, seed=1).network

    def fails(*arguments: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "save_unsplit_network", fails)
        with pytest.raises(OSError, match="no space left"):
            export_pass(network, tmp_path, "1", dict_name=DICT_NAME)
    assert list(tmp_path.iterdir()) == []

    def check_whole(donefile: Path, pass_id: str, embedding: Path, dense: Path) -> None:
        assert not donefile.exists()
        assert (embedding / "_manifest.json").is_file()
        assert (dense / "manifest.json").is_file()

    monkeypatch.setattr(export, "append_pass", check_whole)
    export_pass(network, tmp_path, "1", dict_name=DICT_NAME)
    with pytest.raises(BuildError, match="exists; a new pass needs a new id"):
        export_pass(network, tmp_path, "1", dict_name=DICT_NAME)


def test_a_model_with_other_inputs_is_refused(trained: Trained) -> None:
    with pytest.raises(ModelError, match=r"model\.json: has the inputs .*sparse_ids"):
        InferenceModel(trained.first.unsplit_dir, [*SPARSE_INPUTS, DENSE_INPUT])


def _embedding(exported: ExportedPass) -> NDArray[np.float32]:
    """Rows of the exported SequenceFiles by their keys."""
    table = np.full((1_000_001, 10), np.nan, np.float32)
    for path in sorted(exported.embedding_dir.glob("part-*")):
        reader = SequenceFileReader(str(path))
        while len((batch := reader.read(100_000))[0]):
            table[batch[0].astype(np.int64)] = batch[1].view(np.float32)
    assert not np.isnan(table).any()
    return table
