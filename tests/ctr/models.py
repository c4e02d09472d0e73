"""Tiny dense models made by Paddle, and the embedding that goes with them."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DICT_NAME = "ctr_embedding"
SLOTS = 26
EMBEDDING_DIM = 10
DENSE_DIM = 13
ROW_COUNT = 1000
"""Ids from 0 on that have a row; all others are missing."""

PDMODEL_OUTPUT = "softmax_0.tmp_0"

SPARSE_INPUTS = [f"embedding_{slot}.tmp_0" for slot in range(SLOTS)]


def embedding(ids: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """float32[..., 10] of ids int64[...]; zeros for ids that are missing."""
    table = np.random.default_rng(seed).normal(size=(ROW_COUNT, EMBEDDING_DIM)).astype(np.float32)
    present = (ids >= 0) & (ids < ROW_COUNT)
    return np.where(present[..., None], table[np.where(present, ids, 0)], np.float32(0))


def requests_of(
    count: int, seed: int = 0, *, missing: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Random sparse ids int64[n, 26] and dense values float32[n, 13]."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(-ROW_COUNT if missing else 0, ROW_COUNT, (count, SLOTS))
    return ids, rng.random((count, DENSE_DIM), np.float32)


def make_model(
    directory: Path,
    seed: int,
    *,
    embedding_dim: int = EMBEDDING_DIM,
    outputs: int = 2,
    name: str = "model",
    fused_input: str = "",
    slots: int = SLOTS,
    batch: int | None = None,
    is_pdmodel: bool = False,
) -> None:
    """Saves a dense network of 26 vectors and 13 values with weights drawn by `seed`; with
    `fused_input`, one of that name takes the vectors side by side; with `batch`, it takes so many
    rows and no others; with `is_pdmodel`, in the form of Paddle 2 with output PDMODEL_OUTPUT."""
    import paddle
    from paddle.pir_utils import OldIrGuard

    static: Any = paddle.static
    rng = np.random.default_rng(seed)
    hidden = 8
    paddle.enable_static()
    try:
        with contextlib.ExitStack() as stack:
            if is_pdmodel:
                stack.enter_context(OldIrGuard())
                stack.enter_context(paddle.utils.unique_name.guard())
            program, startup = static.Program(), static.Program()
            stack.enter_context(static.program_guard(program, startup))
            widths = dict.fromkeys(SPARSE_INPUTS[:slots], embedding_dim)
            if fused_input:
                widths = {fused_input: slots * embedding_dim}
            vectors = [static.data(each, [batch, wide], "float32") for each, wide in widths.items()]
            dense = static.data("dense_input", [batch, DENSE_DIM], "float32")
            joined = paddle.concat([*vectors, dense], axis=1)
            width = slots * embedding_dim + DENSE_DIM
            if batch is not None:
                joined = paddle.reshape(joined, [batch, width])
            first = linear(width, hidden, rng)(joined)
            logits = linear(hidden, outputs, rng)(paddle.nn.functional.relu(first))
            probabilities = paddle.nn.functional.softmax(logits)
            executor = static.Executor(paddle.CPUPlace())
            executor.run(startup)
            directory.mkdir(parents=True, exist_ok=True)
            static.save_inference_model(
                str(directory / name),
                [*vectors, dense],
                [probabilities],
                executor,
                program=program,
            )
    finally:
        paddle.disable_static()


def write_manifest(directory: Path, version: str, **changes: Any) -> None:
    """Writes manifest.json; a change to None leaves the field out."""
    manifest = {
        "format": 1,
        "dict_name": DICT_NAME,
        "version": version,
        "slots": SLOTS,
        "embedding_dim": EMBEDDING_DIM,
        "dense_dim": DENSE_DIM,
        "sparse_inputs": SPARSE_INPUTS,
        "dense_input": "dense_input",
        "output": "fetch_name_0",
        "model": "model",
        **changes,
    }
    present = {name: value for name, value in manifest.items() if value is not None}
    (directory / "manifest.json").write_text(json.dumps(present))


def direct_probabilities(
    directory: Path, rows: NDArray[np.float32], dense: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What Paddle itself answers for vectors float32[n, slots, 10] and values float32[n, 13]."""
    from paddle import inference

    config = inference.Config(str(directory / "model.json"), str(directory / "model.pdiparams"))
    config.disable_gpu()
    config.disable_glog_info()
    config.disable_mkldnn()
    predictor = inference.create_predictor(config)
    for slot, name in enumerate(SPARSE_INPUTS[: rows.shape[1]]):
        vectors = np.ascontiguousarray(rows[:, slot])
        predictor.get_input_handle(name).copy_from_cpu(vectors)
    predictor.get_input_handle("dense_input").copy_from_cpu(dense)
    predictor.run()
    return np.asarray(predictor.get_output_handle("fetch_name_0").copy_to_cpu())


def publish(deploy_dir: Path, model_dir: Path) -> None:
    """Switches <deploy_dir>/current to the model and announces it, as the transfer daemon does."""
    link = deploy_dir / ".current"
    link.symlink_to(model_dir.resolve())
    link.rename(deploy_dir / "current")
    announce(deploy_dir)


def announce(deploy_dir: Path) -> None:
    """Gives the file of announcement another modification time."""
    meta = deploy_dir / "fluid_time_file"
    before_ns = meta.stat().st_mtime_ns if meta.exists() else 0
    temporary = deploy_dir / ".fluid_time_file"
    temporary.write_text("changed\n")
    # Two announcements within one tick of the file system's clock are still two.
    after_ns = max(temporary.stat().st_mtime_ns, before_ns + 1)
    os.utime(temporary, ns=(after_ns, after_ns))
    temporary.rename(meta)


def linear(width_in: int, width_out: int, rng: np.random.Generator) -> Any:
    """A layer with weights drawn by `rng`."""
    import paddle

    def drawn(shape: tuple[int, ...]) -> Any:
        values = rng.normal(scale=0.3, size=shape).astype(np.float32)
        return paddle.ParamAttr(initializer=paddle.nn.initializer.Assign(values))

    return paddle.nn.Linear(
        width_in,
        width_out,
        weight_attr=drawn((width_in, width_out)),
        bias_attr=drawn((width_out,)),
    )
