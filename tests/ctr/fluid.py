"""Models in the form of Paddle's fluid age, as its save_inference_model left them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DENSE_INPUT = "dense_input"
OUTPUT = "softmax_0.tmp_0"


def make_fluid_model(
    directory: Path, seed: int, widths: Mapping[str, int], dense_dim: int, *, combined: bool = False
) -> None:
    """Writes `__model__` and one file a parameter, or all of them in `__params__`: each input is a
    sequence of vectors of its width, pooled by sum; then one layer to two probabilities."""
    import paddle
    from paddle.pir_utils import OldIrGuard

    static: Any = paddle.static
    directory.mkdir(parents=True, exist_ok=True)
    paddle.enable_static()
    try:
        with OldIrGuard():
            program, startup = static.Program(), static.Program()
            with static.program_guard(program, startup):
                inputs, output = _network(static, program, widths, dense_dim)
                executor = static.Executor(paddle.CPUPlace())
                executor.run(startup)
                parameters = {
                    name: static.global_scope().find_var(name).get_tensor()
                    for name in ("fc_0.w_0", "fc_0.b_0")
                }
                for name, values in weights(seed, sum(widths.values()) + dense_dim).items():
                    parameters[name].set(values, paddle.CPUPlace())
                model = static.serialize_program(inputs, [output], program=program)
                (directory / "__model__").write_bytes(model)
                executor.run(_saving(static, program, directory, combined))
    finally:
        paddle.disable_static()


def weights(seed: int, width: int) -> dict[str, NDArray[np.float32]]:
    """The parameters by name."""
    rng = np.random.default_rng(seed)
    return {
        "fc_0.w_0": rng.normal(scale=0.3, size=(width, 2)).astype(np.float32),
        "fc_0.b_0": rng.normal(size=2).astype(np.float32),
    }


def fluid_probabilities(seed: int, pooled: NDArray[np.float32]) -> NDArray[np.float32]:
    """What such a model answers, computed here, for the inputs side by side, float32[n, width]."""
    drawn = weights(seed, pooled.shape[1])
    logits = pooled.astype(np.float64) @ drawn["fc_0.w_0"] + drawn["fc_0.b_0"]
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), np.float32)


def _network(
    static: Any, program: Any, widths: Mapping[str, int], dense_dim: int
) -> tuple[list[Any], Any]:
    block = program.global_block()

    def added(op_type: str, inputs: Any, name: str, **attributes: Any) -> Any:
        output = block.create_var(name=name, dtype="float32")
        outputs = {"Out": [output]}
        if op_type == "sequence_pool":
            outputs["MaxIndex"] = [block.create_var(name=f"{name}.max_index", dtype="int32")]
        block.append_op(type=op_type, inputs=inputs, outputs=outputs, attrs=attributes)
        return output

    sequences = [
        static.data(name, [None, wide], "float32", lod_level=1) for name, wide in widths.items()
    ]
    dense = static.data(DENSE_INPUT, [None, dense_dim], "float32")
    pooled = [
        added("sequence_pool", {"X": [each]}, f"sequence_pool_{number}.tmp_0", pooltype="SUM")
        for number, each in enumerate(sequences)
    ]
    width = sum(widths.values()) + dense_dim
    weight = static.create_parameter([width, 2], "float32", name="fc_0.w_0")
    bias = static.create_parameter([2], "float32", name="fc_0.b_0")
    joined = added("concat", {"X": [*pooled, dense]}, "concat_0.tmp_0", axis=1)
    product = added(
        "mul", {"X": [joined], "Y": [weight]}, "fc_0.tmp_0", x_num_col_dims=1, y_num_col_dims=1
    )
    logits = added("elementwise_add", {"X": [product], "Y": [bias]}, "fc_0.tmp_1", axis=1)
    return [*sequences, dense], added("softmax", {"X": [logits]}, OUTPUT, axis=-1)


def _saving(static: Any, program: Any, directory: Path, combined: bool) -> Any:
    """The program that writes the parameters."""
    import paddle

    saving = static.Program()
    block = saving.global_block()
    variables = []
    for name in sorted(weights(0, 1)):
        known = program.global_block().var(name)
        variables.append(
            block.create_var(name=name, shape=known.shape, dtype=known.dtype, persistable=True)
        )
    if combined:
        attributes = {"file_path": str(directory / "__params__")}
        saved = block.create_var(name="saved", type=paddle.base.core.VarDesc.VarType.RAW)
        block.append_op(
            type="save_combine", inputs={"X": variables}, outputs={"Y": [saved]}, attrs=attributes
        )
        return saving
    for variable in variables:
        attributes = {"file_path": str(directory / variable.name)}
        block.append_op(type="save", inputs={"X": [variable]}, outputs={}, attrs=attributes)
    return saving
