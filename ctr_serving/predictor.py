"""Paddle's inference engine: one program with its weights, ready to run."""

from __future__ import annotations

import functools
import json
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from ctr_serving.manifest import Manifest
from ctr_serving.weights import check_parameter_files, check_weights
from cube_core.errors import ModelError
from cube_proto.paddle_tensor_pb2 import ProgramDesc

FLUID_PROGRAM = "__model__"
"""The program of Paddle's fluid age, beside one file a parameter, or all of them in __params__."""
_FLUID_WEIGHTS = "__params__"

# Newest first: the intermediate representation of Paddle 3, then the program of Paddle 2.
_PROGRAM_SUFFIXES = (".json", ".pdmodel")

_ONEDNN_SHAPES_MAX = 320
"""Numbers of rows for which oneDNN keeps what it prepared: all that there are, by engine.py."""

_REASON = re.compile(r"\w+Error: ")

FLAGS: dict[str, bool | str | float] = {"FLAGS_eager_delete_tensor_gb": -1.0}
"""Intermediate tensors stay for the next run. Freeing them after each operator wakes a thread as
often, which is a quarter of the CPU time of a run of 50 rows of the Criteo network."""


ONE_ROW_ONLY = (
    "one instance runs, two at once do not: export the network with None as the batch dimension of"
    " its inputs, and with no other number in its place"
)


class Predictor:
    """One of Paddle's predictors with its handles, looked up once.

    Attributes:
        program: its file.

    Raises:
        ModelError: a file is missing or corrupt, or the inputs are not those of the manifest.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, onednn: bool) -> None:
        fused = manifest.fused
        stem, sparse, output = manifest.model, manifest.sparse_inputs, manifest.output
        if fused is not None:
            stem, sparse, output = fused.model, (fused.input,), fused.output
        self.program = program_file(directory, stem)
        self._native = native = create_native(directory, stem, onednn=onednn)
        check_names(directory, native, {*sparse, manifest.dense_input}, {output})
        # The lookups of that age gave sequences, which such a program then pools.
        self._takes_sequences = stem == FLUID_PROGRAM
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
        if self._takes_sequences:
            one_each = [list(range(len(rows) + 1))]
            for handle in self._vectors:
                handle.set_lod(one_each)
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
        ModelError: Paddle is not installed, or its installation is broken in any way.
    """
    # A hint for people who compile Paddle extensions; it means nothing to a server's log.
    warnings.filterwarnings("ignore", message="No ccache found", category=UserWarning)
    try:
        import paddle
        from paddle import inference
    except Exception as error:
        raise ModelError(
            f"paddle cannot be imported ({type(error).__name__}: {error}); install the package with"
            " its extra [paddle]"
        ) from error
    paddle.disable_signal_handler()
    paddle.set_flags(FLAGS)
    return inference


def first_line(error: Exception) -> str:
    """Paddle's texts carry its own stack; the reason is the first line that is not its heading, or
    that of an error where the stack of the exporter, which a program may hold, comes first."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("In user code", "---"))]
    if "In user code:" in lines:
        said = [line for line in said if _REASON.match(line)] or said
    return said[0] if said else type(error).__name__


def create_native(directory: Path, stem: str, *, onednn: bool) -> Any:
    """Paddle's predictor of a program and its weights.

    Args:
        stem: file names without their endings, or "__model__".

    Raises:
        ModelError: a file is missing or corrupt.
    """
    inference = import_paddle()
    program, weights = program_file(directory, stem), _weights_file(directory, stem)
    _check_program(program, weights)
    if weights is not None:
        check_weights(weights)
    try:
        if weights is None:
            config = inference.Config(str(directory))
        else:
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
        beside = "its parameters" if weights is None else weights.name
        raise ModelError(f"{program} and {beside}: {first_line(error)}") from error


def _check_program(program: Path, weights: Path | None) -> None:
    """Refuses what is no program at all: Paddle ends the process over it. Looks over its
    parameters when each has a file of its own."""
    try:
        content = program.read_bytes()
        if program.suffix == ".json":
            json.loads(content)
            return
        description = ProgramDesc.FromString(content)
        if not description.blocks:
            raise DecodeError("it has no block")
    except OSError as error:
        raise ModelError(f"{program}: cannot be read: {error.strerror}") from error
    except (ValueError, DecodeError) as error:
        raise ModelError(f"{program}: is no program of Paddle: {error}") from error
    if weights is None:
        check_parameter_files(program.parent, description)


def program_file(directory: Path, stem: str) -> Path:
    """The file of a program; see `create_native`.

    Raises:
        ModelError: it is missing.
    """
    if stem == FLUID_PROGRAM:
        if not (directory / stem).is_file():
            raise ModelError(f"{directory / stem}: is missing")
        return directory / stem
    programs = [directory / f"{stem}{suffix}" for suffix in _PROGRAM_SUFFIXES]
    found = next((path for path in programs if path.is_file()), None)
    if found is None:
        raise ModelError(f"{directory}: has neither {programs[0].name} nor {programs[1].name}")
    return found


def _weights_file(directory: Path, stem: str) -> Path | None:
    """None when each parameter has a file of its own."""
    if stem == FLUID_PROGRAM:
        weights = directory / _FLUID_WEIGHTS
        return weights if weights.is_file() else None
    weights = directory / f"{stem}.pdiparams"
    if not weights.is_file():
        raise ModelError(f"{weights}: is missing")
    return weights


def check_names(directory: Path, native: Any, wanted: set[str], outputs: set[str]) -> None:
    """Compares the inputs and outputs of a program with those of its manifest.

    Raises:
        ModelError: names those that differ.
    """
    found = set(native.get_input_names())
    if wanted != found:
        raise ModelError(
            f"{directory}: the inputs are not those of manifest.json: the model lacks"
            f" {_listed(wanted - found)}, the manifest lacks {_listed(found - wanted)}"
        )
    known = set(native.get_output_names())
    for output in sorted(outputs - known):
        raise ModelError(
            f"{directory}: manifest.json: output: {output!r} is no output of the model,"
            f" which has {_listed(known)}"
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) if names else "none"
