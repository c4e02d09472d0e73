"""Paddle's inference engine: one program with its weights, ready to run."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.manifest import Manifest
from cube_core.errors import ModelError

# Newest first: the intermediate representation of Paddle 3, then the program of Paddle 2.
_PROGRAM_SUFFIXES = (".json", ".pdmodel")

_ONEDNN_SHAPES_MAX = 320
"""Numbers of rows for which oneDNN keeps what it prepared: all that there are, by engine.py."""

FLAGS: dict[str, bool | str | float] = {"FLAGS_eager_delete_tensor_gb": -1.0}
"""Intermediate tensors stay for the next run. Freeing them after each operator wakes a thread as
often, which is a quarter of the CPU time of a run of 50 rows of the Criteo network."""


class Predictor:
    """One of Paddle's predictors with its handles, looked up once.

    Raises:
        ModelError: a file is missing or corrupt, or the inputs are not those of the manifest.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, onednn: bool) -> None:
        fused = manifest.fused
        stem, sparse, output = manifest.model, manifest.sparse_inputs, manifest.output
        if fused is not None:
            stem, sparse, output = fused.model, (fused.input,), fused.output
        self._native = native = _create(directory, stem, onednn=onednn)
        _check_names(directory, native, {*sparse, manifest.dense_input}, output)
        self._vectors = [native.get_input_handle(name) for name in sparse]
        self._dense = native.get_input_handle(manifest.dense_input)
        self._output = native.get_output_handle(output)

    def run(self, rows: NDArray[np.float32], dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """float32[n, slots * embedding_dim] and float32[n, dense_dim] to float32[n, 2].

        Raises:
            RuntimeError, ValueError: Paddle refused to run it.
        """
        if len(self._vectors) == 1:
            self._vectors[0].copy_from_cpu(rows)
        elif self._vectors:
            # Paddle takes 20 times as long for views that are not contiguous.
            by_slot = rows.reshape(len(rows), len(self._vectors), -1).transpose(1, 0, 2)
            for handle, vectors in zip(self._vectors, np.ascontiguousarray(by_slot), strict=True):
                handle.copy_from_cpu(vectors)
        self._dense.copy_from_cpu(dense)
        self._native.run()
        probabilities: NDArray[np.float32] = self._output.copy_to_cpu()
        return probabilities


@functools.cache
def import_paddle() -> Any:
    """Imports Paddle's inference module, without the signal handlers that come with it.

    The first call takes away the process's own handlers of SIGTERM and others; who has any must
    set them again.

    Raises:
        ModelError: Paddle is not installed.
    """
    # A hint for people who compile Paddle extensions; it means nothing to a server's log.
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    try:
        import paddle
        from paddle import inference
    except ImportError as error:
        raise ModelError(
            f"paddle cannot be imported ({error}); install the package with its extra [paddle]"
        ) from error
    paddle.disable_signal_handler()
    paddle.set_flags(FLAGS)
    return inference


def first_line(error: Exception) -> str:
    """Paddle's texts carry its own stack; the reason is the first line that is not its heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("In user code", "---"))]
    return said[0] if said else type(error).__name__


def _create(directory: Path, stem: str, *, onednn: bool) -> Any:
    inference = import_paddle()
    programs = [directory / f"{stem}{suffix}" for suffix in _PROGRAM_SUFFIXES]
    program = next((path for path in programs if path.is_file()), None)
    if program is None:
        raise ModelError(f"{directory}: has neither {programs[0].name} nor {programs[1].name}")
    weights = directory / f"{stem}.pdiparams"
    if not weights.is_file():
        raise ModelError(f"{weights}: is missing")
    try:
        config = inference.Config(str(program), str(weights))
        config.disable_gpu()
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(1)
        if onednn:
            config.enable_mkldnn()
            # Its default are 10, and preparing an eleventh again takes 2 ms.
            config.set_mkldnn_cache_capacity(_ONEDNN_SHAPES_MAX)
        else:
            config.disable_mkldnn()
        if program.suffix == ".json":
            config.enable_new_ir(True)
            config.enable_new_executor(True)
        return inference.create_predictor(config)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{program} and {weights.name}: {first_line(error)}") from error


def _check_names(directory: Path, native: Any, wanted: set[str], output: str) -> None:
    found = set(native.get_input_names())
    if wanted != found:
        raise ModelError(
            f"{directory}: the inputs are not those of manifest.json: the model lacks"
            f" {_listed(wanted - found)}, the manifest lacks {_listed(found - wanted)}"
        )
    outputs = native.get_output_names()
    if output not in outputs:
        raise ModelError(
            f"{directory}: manifest.json: output: {output!r} is no output of the model,"
            f" which has {_listed(set(outputs))}"
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) if names else "none"
