"""Exporting a trained pass: two tables and the dense network, each table announced for its dict."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ctr_serving.check_rows import CHECK_ROWS_NAME
from ctr_serving.criteo import DENSE_DIM, SLOTS
from cube_builder import append_pass
from cube_core.versions import Version
from examples.criteo_ctr.export import ExportedPass, write_manifest, write_table, written_whole
from examples.criteo_ctr.models import (
    DENSE_INPUT,
    MODEL_STEM,
    InferenceModel,
    input_spec,
    save_layer,
    save_unsplit_network,
)
from examples.deepfm_ctr.network import EMBEDDING_DIM, FIRST_ORDER_DIM, DeepFm

EMBEDDING_DICT = "ctr_embedding"
FIRST_ORDER_DICT = "ctr_first_order"
VECTORS_INPUT = "vectors"
WEIGHTS_INPUT = "weights"

_CHECK_ROWS = 16


def export_pass(network: DeepFm, output_dir: Path, pass_id: str) -> ExportedPass:
    """Writes `<output_dir>/<pass_id>/` whole, then appends a line to the donefile of each dict:
    `<output_dir>/donefile_<dict>/base.txt`. The dense network goes with the embedding's.

    Raises:
        BuildError: the pass is there already.
        ModelError: the saved dense network has other inputs than it was given.
    """
    target = output_dir / pass_id
    version = Version(pass_id, pass_id)
    with written_whole(target) as staging:
        write_table(network.embedding.weight, "embedding", staging / EMBEDDING_DICT)
        write_table(network.first_order.weight, "first_order", staging / FIRST_ORDER_DICT)
        write_dense(network, staging / "dense", version)
        save_unsplit_network(network, staging / "unsplit")
    for dict_name in (FIRST_ORDER_DICT, EMBEDDING_DICT):
        dense = target / "dense" if dict_name == EMBEDDING_DICT else None
        donefile = output_dir / f"donefile_{dict_name}" / "base.txt"
        append_pass(donefile, pass_id, target / dict_name, dense)
    return ExportedPass(
        version, target / EMBEDDING_DICT, target / "dense", target / "unsplit", time.monotonic()
    )


def write_dense(network: DeepFm, dense_dir: Path, version: Version) -> None:
    """Writes the dense network, recorded rows and the manifest.

    Raises:
        ModelError: the saved network has other inputs than it was given.
    """
    widths = {
        VECTORS_INPUT: SLOTS * EMBEDDING_DIM,
        WEIGHTS_INPUT: SLOTS * FIRST_ORDER_DIM,
        DENSE_INPUT: DENSE_DIM,
    }
    specs = [input_spec(name, width) for name, width in widths.items()]
    save_layer(network.dense_network, dense_dir, specs)
    model = InferenceModel(dense_dir, list(widths))
    _save_check_rows(model, dense_dir, widths)
    manifest = {
        "format": 2,
        "version": str(version),
        "slots": SLOTS,
        "dense_dim": DENSE_DIM,
        "dicts": {
            EMBEDDING_DICT: {"dim": EMBEDDING_DIM},
            FIRST_ORDER_DICT: {"dim": FIRST_ORDER_DIM},
        },
        # Side by side in this order: slot by slot, as the network was trained.
        "lookups": [
            {"slot": slot, "dict": dict_name, "input": name}
            for dict_name, name in (
                (EMBEDDING_DICT, VECTORS_INPUT),
                (FIRST_ORDER_DICT, WEIGHTS_INPUT),
            )
            for slot in range(SLOTS)
        ],
        "dense_input": DENSE_INPUT,
        "outputs": [model.output],
        "model": MODEL_STEM,
        # For cube-transfer, which publishes the model with the pass of this dict.
        "dict_name": EMBEDDING_DICT,
        "embedding_dim": EMBEDDING_DIM,
    }
    write_manifest(dense_dir, manifest)


def _save_check_rows(model: InferenceModel, dense_dir: Path, widths: dict[str, int]) -> None:
    """Records what the network answers to a few drawn rows, for the predictor to compare."""
    random = np.random.default_rng(1)
    feeds = {
        name: random.normal(scale=0.05, size=(_CHECK_ROWS, width)).astype(np.float32)
        for name, width in widths.items()
    }
    recorded: dict[str, Any] = {f"input.{name}": values for name, values in feeds.items()}
    recorded[f"output.{model.output}"] = model.run(dict(feeds))
    np.savez(dense_dir / CHECK_ROWS_NAME, **recorded)
