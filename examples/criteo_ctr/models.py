"""Saving the network for Paddle's inference engine, split and unsplit, and running it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import inference

from ctr_serving.check_rows import CHECK_ROWS_NAME
from ctr_serving.criteo import DENSE_DIM, SLOTS
from cube_core.errors import ModelError
from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.network import EMBEDDING_DIM, CtrNetwork, FusedDenseNetwork

MODEL_STEM = "model"
FUSED_STEM = "fused"
SPARSE_INPUTS = [f"embedding_{slot}.tmp_0" for slot in range(SLOTS)]
FUSED_INPUT = "embeddings"
DENSE_INPUT = "dense_input"
IDS_INPUT = "sparse_ids"

_BATCH_ROWS = 1024
_CHECK_ROWS = 16


def save_dense_network(network: CtrNetwork, model_dir: Path) -> str:
    """Saves the network behind the embedding: 26 vectors and the dense features are its inputs.

    Returns:
        the name of the output with the probabilities.

    Raises:
        ModelError: the saved model has other inputs than it was given.
    """
    vector = [input_spec(name, EMBEDDING_DIM) for name in SPARSE_INPUTS]
    save_layer(network.dense_network, model_dir, [vector, input_spec(DENSE_INPUT, DENSE_DIM)])
    return InferenceModel(model_dir, [*SPARSE_INPUTS, DENSE_INPUT]).output


def save_fused_network(network: CtrNetwork, model_dir: Path) -> str:
    """Saves the same network with one input for the vectors of all slots, beside the other.

    Returns:
        the name of the output with the probabilities.

    Raises:
        ModelError: the saved model has other inputs than it was given.
    """
    specs = [
        input_spec(FUSED_INPUT, SLOTS * EMBEDDING_DIM),
        input_spec(DENSE_INPUT, DENSE_DIM),
    ]
    save_layer(FusedDenseNetwork(network.dense_network), model_dir, specs, FUSED_STEM)
    return InferenceModel(model_dir, [FUSED_INPUT, DENSE_INPUT], FUSED_STEM).output


def save_check_rows(model_dir: Path) -> None:
    """Records what the split network answers to a few drawn rows, for the predictor to compare."""
    random = np.random.default_rng(1)
    vectors = random.normal(scale=0.05, size=(_CHECK_ROWS, SLOTS, EMBEDDING_DIM)).astype(np.float32)
    dense = random.random((_CHECK_ROWS, DENSE_DIM), np.float32)
    feeds = {name: vectors[:, slot] for slot, name in enumerate(SPARSE_INPUTS)}
    model = InferenceModel(model_dir, [*SPARSE_INPUTS, DENSE_INPUT])
    np.savez(
        model_dir / CHECK_ROWS_NAME,
        embeddings=vectors.reshape(_CHECK_ROWS, -1),
        dense=dense,
        probabilities=model.run({**feeds, DENSE_INPUT: dense}),
    )


def save_unsplit_network(network: paddle.nn.Layer, model_dir: Path) -> None:
    """Saves the whole network, tables included: ids and the dense features are its inputs."""
    specs = [input_spec(IDS_INPUT, SLOTS, "int64"), input_spec(DENSE_INPUT, DENSE_DIM)]
    save_layer(network, model_dir, specs)


def unsplit_probabilities(
    model_dir: Path, rows: Rows, *, onednn: bool = True
) -> NDArray[np.float32]:
    """Probabilities float32[n, 2] of the unsplit model, computed by Paddle directly, with oneDNN or
    without: which of them the predictor uses depends on the rows of a batch."""
    model = InferenceModel(model_dir, [IDS_INPUT, DENSE_INPUT], onednn=onednn)
    return np.concatenate(
        [
            model.run(
                {
                    IDS_INPUT: rows.sparse_ids[begin : begin + _BATCH_ROWS],
                    DENSE_INPUT: rows.dense[begin : begin + _BATCH_ROWS],
                }
            )
            for begin in range(0, len(rows), _BATCH_ROWS)
        ]
    )


class InferenceModel:
    """One saved model in Paddle's inference engine.

    Raises:
        ModelError: the model's inputs are not those expected.
    """

    def __init__(
        self, model_dir: Path, inputs: list[str], name: str = MODEL_STEM, *, onednn: bool = True
    ) -> None:
        stem = model_dir / name
        config = inference.Config(f"{stem}.json", f"{stem}.pdiparams")
        config.disable_gpu()
        config.disable_glog_info()
        if onednn:
            config.enable_mkldnn()
        else:
            config.disable_mkldnn()
        self._predictor = inference.create_predictor(config)
        found = self._predictor.get_input_names()
        if sorted(found) != sorted(inputs):
            raise ModelError(f"{stem}.json: has the inputs {found}, expected {inputs}")
        self.output: str = self._predictor.get_output_names()[0]

    def run(self, feeds: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """One batch: an array for each input, float32[n, 2] out."""
        for name, array in feeds.items():
            self._predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(array))
        self._predictor.run()
        return np.asarray(self._predictor.get_output_handle(self.output).copy_to_cpu())


def input_spec(
    name: str, width: int, dtype: Literal["int64", "float32"] = "float32"
) -> paddle.static.InputSpec:
    """An input [n, width]."""
    return paddle.static.InputSpec([None, width], dtype, name=name)


def save_layer(
    layer: paddle.nn.Layer, model_dir: Path, specs: list[Any], name: str = MODEL_STEM
) -> None:
    """Saves a layer with inputs of these names for the inference engine."""
    model_dir.mkdir(parents=True, exist_ok=True)
    layer.eval()
    paddle.jit.save(layer, str(model_dir / name), input_spec=specs)
