"""Models of Paddle's fluid age: a program, one file a parameter, sequences as inputs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ctr_serving.check_rows import CHECK_ROWS_NAME
from ctr_serving.engine import Engine
from ctr_serving.feeds import Ragged
from ctr_serving.network import Network
from ctr_serving.ops import pooled
from ctr_serving.predictor import first_line, import_paddle
from cube_core.errors import ModelError
from tests.ctr.fluid import DENSE_INPUT, OUTPUT, fluid_probabilities, make_fluid_model
from tests.ctr.models import (
    DENSE_DIM,
    DICT_NAME,
    EMBEDDING_DIM,
    ROW_COUNT,
    SPARSE_INPUTS,
    embedding,
    publish,
    requests_of,
    write_manifest,
)
from tests.ctr.networks import write_network_manifest
from tests.ctr.service import Shards, ctr_running, write_conf
from tests.waiting import wait_until

SEED = 4
ASKED_NUM = 40


def make_criteo(directory: Path, *, combined: bool = False) -> None:
    """The network of the original's example: 26 sequences of vectors and 13 values."""
    import_paddle()
    widths = dict.fromkeys(SPARSE_INPUTS, EMBEDDING_DIM)
    make_fluid_model(directory, SEED, widths, DENSE_DIM, combined=combined)
    write_manifest(directory, "1_1", model="__model__", output=OUTPUT)


@pytest.mark.parametrize("combined", [False, True])
@pytest.mark.parametrize("rows_num", [1, 7, 50])
def test_the_criteo_network_is_run_with_one_vector_a_slot(
    tmp_path: Path, combined: bool, rows_num: int
) -> None:
    make_criteo(tmp_path, combined=combined)
    names = {path.name for path in tmp_path.iterdir()}
    params = {"__params__"} if combined else {"fc_0.w_0", "fc_0.b_0"}
    assert names == {"__model__", "manifest.json"} | params
    engine = Engine.load(tmp_path)
    ids, dense = requests_of(rows_num)
    rows = embedding(ids, seed=1).reshape(rows_num, -1)
    wanted = fluid_probabilities(SEED, np.concatenate([rows, dense], axis=1))
    np.savez(tmp_path / CHECK_ROWS_NAME, embeddings=rows, dense=dense, probabilities=wanted)
    assert Network.load(tmp_path).manifest.version == "1_1"
    for engine.onednn_rows_min in (1, 256):
        np.testing.assert_allclose(engine.predict(rows, dense), wanted, atol=1e-6, rtol=0)


def test_a_fluid_model_is_served(shards: Shards, tmp_path: Path) -> None:
    write_conf(tmp_path, shards.ports)
    make_criteo(tmp_path / "fluid")
    publish(tmp_path / "model", tmp_path / "fluid")
    ids, dense = requests_of(20, missing=True)
    rows = embedding(ids, seed=1).reshape(20, -1)
    with ctr_running(tmp_path) as ctr, ctr.client() as client:
        wait_until(ctr.model_version, what="the model served")
        wanted = fluid_probabilities(SEED, np.concatenate([rows, dense], axis=1))
        np.testing.assert_allclose(client.predict(ids, dense), wanted, atol=1e-6, rtol=0)


def test_a_fluid_model_pools_several_ids_a_slot_of_joined_requests(
    shards: Shards, tmp_path: Path
) -> None:
    extra = "enable_batch_align: 1 default_embeddings { slot: 1 values: 0.5 }"
    write_conf(tmp_path, shards.ports, extra=extra)
    (tmp_path / "workflow.prototxt").write_text(
        """
        workflows { name: "w" workflow_type: "Sequence"
                    nodes { name: "ctr_prediction" type: "SlotsOp" } }
        """
    )
    import_paddle()
    names = [f"embedding_{slot}" for slot in range(3)]
    make_fluid_model(tmp_path / "fluid", SEED, dict.fromkeys(names, EMBEDDING_DIM), DENSE_DIM)
    write_network_manifest(
        tmp_path / "fluid",
        "1_1",
        slots=3,
        dense_dim=DENSE_DIM,
        dense_input=DENSE_INPUT,
        dicts={DICT_NAME: {"dim": EMBEDDING_DIM}},
        lookups=[
            {"slot": slot, "dict": DICT_NAME, "input": name, "pooling": "sequence"}
            for slot, name in enumerate(names)
        ],
        outputs=[OUTPUT],
        model="__model__",
    )
    publish(tmp_path / "model", tmp_path / "fluid")
    # The second instance has a key without a row in slot 1, and no id in slot 2.
    counts = np.array([[2, 1, 3], [1, 2, 0]])
    ids = np.array([5, 7, 11, 1, 2, 3, 8, 9, ROW_COUNT + 1])
    dense: NDArray[np.float32] = np.random.default_rng(1).random((2, DENSE_DIM), np.float32)
    vectors = embedding(ids, seed=1)
    vectors[-1] = 0.5
    ends = np.cumsum(counts.reshape(-1))
    sums = [part.sum(axis=0) for part in np.split(vectors, ends[:-1])]
    wanted = fluid_probabilities(SEED, np.concatenate([np.reshape(sums, (2, -1)), dense], axis=1))
    with (
        ctr_running(tmp_path, "--workflow_file=workflow.prototxt") as ctr,
        ctr.client() as client,
        ThreadPoolExecutor(8) as pool,
    ):
        wait_until(ctr.model_version, what="the model served")
        asked = [
            pool.submit(client.predict, ids, dense, ids_per_slot=counts) for _ in range(ASKED_NUM)
        ]
        for each in asked:
            np.testing.assert_allclose(each.result(), wanted, atol=1e-6, rtol=0)
        status = ctr.status()
        assert status["missing_keys_by_slot"] == [0, ASKED_NUM, 0]
        assert status["rows"] == 2 * ASKED_NUM


def ragged(counts: list[int], width: int, seed: int) -> Ragged:
    values = np.random.default_rng(seed).normal(size=(sum(counts), width)).astype(np.float32)
    return Ragged(values, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


@pytest.mark.parametrize(
    "counts",
    [
        [[1], [3]],
        [[2, 0, 1], [0, 0, 4]],
        [[1] * 40, [2] * 40],
        # Fewer ids than instances, or none at all.
        [[0], [0]],
        [[0, 0], [1, 1]],
        [[0, 2, 0, 0], [1, 0, 1, 0]],
    ],
)
def test_sequences_of_any_length_are_pooled_by_the_model(
    tmp_path: Path, counts: list[list[int]]
) -> None:
    import_paddle()
    make_fluid_model(tmp_path, SEED, {"first": 3, "second": 2}, 2)
    write_network_manifest(
        tmp_path,
        "1_1",
        slots=2,
        dense_dim=2,
        dense_input=DENSE_INPUT,
        dicts={DICT_NAME: {"dim": 3}, "other": {"dim": 2}},
        lookups=[
            {"slot": 0, "dict": DICT_NAME, "input": "first", "pooling": "sequence"},
            {"slot": 1, "dict": "other", "input": "second", "pooling": "sequence"},
        ],
        outputs=[OUTPUT],
        model="__model__",
    )
    network = Network.load(tmp_path)
    first, second = ragged(counts[0], 3, 1), ragged(counts[1], 2, 2)
    dense: NDArray[np.float32] = np.random.default_rng(3).random((len(counts[0]), 2), np.float32)
    found = network.run({"first": first, "second": second, DENSE_INPUT: dense})[OUTPUT]
    inputs = [pooled(first, "sum"), pooled(second, "sum"), dense]
    wanted = fluid_probabilities(SEED, np.concatenate(inputs, axis=1))
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)


def test_the_reason_is_told_and_not_the_stack_of_the_exporter() -> None:
    """As Paddle tells it where the program holds the stacks of its operators."""
    text = """In user code:

    File "export.py", line 74, in added
      raise_on = block.append_op(type=op_type)

    InvalidArgumentError: The first dimension of Input(X) must be large than batch size.
      [Hint: Expected dims[0] >= 2.] (at /paddle/sequence_pool_kernel_impl.h:43)
"""
    wanted = "InvalidArgumentError: The first dimension of Input(X) must be large than batch size."
    assert first_line(ValueError(text)) == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("__model__", None, "__model__: is missing"),
        ("__model__", b"no program", "__model__: is no program of Paddle: "),
        ("__model__", b"", "__model__: is no program of Paddle: it has no block"),
        ("fc_0.w_0", None, "fc_0.w_0: is missing"),
        ("fc_0.w_0", b"", "fc_0.w_0: is not one tensor"),
        ("fc_0.w_0", b"\0" * 20, "fc_0.w_0: a description of 0 bytes"),
    ],
)
def test_a_damaged_fluid_model_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    make_criteo(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message):
        Engine.load(tmp_path)


def test_a_parameter_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    make_criteo(tmp_path)
    parameter = tmp_path / "fc_0.w_0"
    parameter.write_bytes(parameter.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"fc_0.w_0: is cut off: .* and 2183 are left"):
        Engine.load(tmp_path)


def test_a_program_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    make_criteo(tmp_path)
    program = tmp_path / "__model__"
    program.write_bytes(program.read_bytes()[:-100])
    with pytest.raises(ModelError, match="__model__: is no program of Paddle: "):
        Engine.load(tmp_path)
