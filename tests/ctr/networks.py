"""Small models with any inputs, for general ops, in the forms of Paddle 3 and of the fluid age."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.ctr.models import linear


def make_network(
    directory: Path, seed: int, widths: Mapping[str, int], *, ids: Sequence[str] = ()
) -> None:
    """Saves a network that takes float32[n, width] for each input, with weights drawn by `seed`.

    Args:
        ids: inputs of width 1 that are int64, and taken as numbers.
    """
    import paddle

    static: Any = paddle.static
    rng = np.random.default_rng(seed)
    paddle.enable_static()
    try:
        program, startup = static.Program(), static.Program()
        with static.program_guard(program, startup):
            inputs = [
                static.data(name, [None, wide], "int64" if name in ids else "float32")
                for name, wide in widths.items()
            ]
            joined = paddle.concat([each.cast("float32") for each in inputs], axis=1)
            logits = linear(sum(widths.values()), 2, rng)(joined)
            result = paddle.nn.functional.softmax(logits)
            executor = static.Executor(paddle.CPUPlace())
            executor.run(startup)
            directory.mkdir(parents=True, exist_ok=True)
            static.save_inference_model(
                str(directory / "model"), inputs, [result], executor, program=program
            )
    finally:
        paddle.disable_static()


def write_network_manifest(directory: Path, version: str, **fields: Any) -> None:
    """Writes manifest.json of format 2."""
    manifest = {"format": 2, "version": version, "outputs": ["fetch_name_0"], **fields}
    (directory / "manifest.json").write_text(json.dumps(manifest))


def run_directly(directory: Path, feed: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """What Paddle itself answers."""
    from paddle import inference

    config = inference.Config(str(directory / "model.json"), str(directory / "model.pdiparams"))
    config.disable_gpu()
    config.disable_glog_info()
    config.disable_mkldnn()
    predictor = inference.create_predictor(config)
    for name, values in feed.items():
        predictor.get_input_handle(name).copy_from_cpu(np.ascontiguousarray(values))
    predictor.run()
    return np.asarray(predictor.get_output_handle("fetch_name_0").copy_to_cpu())
