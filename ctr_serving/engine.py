"""One dense model in Paddle's inference engine."""

from __future__ import annotations

import functools
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.manifest import Manifest, check_files, read_manifest
from cube_core.errors import ModelError, PredictionError

# Newest first: the intermediate representation of Paddle 3, then the program of Paddle 2.
_PROGRAM_SUFFIXES = (".json", ".pdmodel")
_OUTPUT_COLUMNS = 2


class Engine:
    """A loaded model, with one predictor for each thread that runs it.

    Attributes:
        directory: where it was loaded from, with no symbolic link in it.
        manifest: what it says of itself.
        load_seconds: time that loading and warming up took.
    """

    def __init__(self, directory: Path, manifest: Manifest, predictors: list[_Predictor]) -> None:
        self.directory = directory
        self.manifest = manifest
        self.load_seconds = 0.0
        self._predictors = predictors

    @classmethod
    def load(cls, directory: Path, threads: int) -> Engine:
        """Loads a model directory and runs it once in every predictor.

        Imports Paddle, which takes about a second the first time.

        Raises:
            ModelError: a file is missing or corrupt, or the model does not fit its manifest; names
                the file and the field.
        """
        start_s = time.monotonic()
        directory = directory.resolve()
        manifest = read_manifest(directory)
        check_files(directory, manifest)
        native = _create_predictor(directory, manifest.model)
        _check_names(directory, manifest, native)
        natives = [native, *(native.clone() for _ in range(threads - 1))]
        engine = cls(directory, manifest, [_Predictor(manifest, one) for one in natives])
        engine._warm_up()
        engine.load_seconds = time.monotonic() - start_s
        return engine

    def predict(
        self, rows: NDArray[np.float32], dense: NDArray[np.float32], thread: int = 0
    ) -> NDArray[np.float32]:
        """Runs the model; holds the GIL for most of it, as Paddle does.

        Args:
            rows: float32[slots, n, embedding_dim], contiguous: all rows of a slot together.
            dense: float32[n, dense_dim], contiguous; NaN and infinities pass through.
            thread: which predictor runs; one must not be run twice at the same time.

        Returns:
            probabilities float32[n, 2], n > 0.

        Raises:
            PredictionError: Paddle refused to run it.
        """
        try:
            return self._predictors[thread].run(rows, dense)
        except (RuntimeError, ValueError) as error:
            raise PredictionError(f"{self.directory}: {_first_line(error)}") from error

    def _warm_up(self) -> None:
        manifest = self.manifest
        rows = np.zeros((manifest.slots, 1, manifest.embedding_dim), np.float32)
        dense = np.zeros((1, manifest.dense_dim), np.float32)
        for thread in range(len(self._predictors)):
            try:
                probabilities = self.predict(rows, dense, thread)
            except PredictionError as error:
                raise ModelError(
                    f"{error} (run with embedding_dim={manifest.embedding_dim} and"
                    f" dense_dim={manifest.dense_dim} of manifest.json)"
                ) from error
            if probabilities.shape != (1, _OUTPUT_COLUMNS) or probabilities.dtype != np.float32:
                raise ModelError(
                    f"{self.directory}: output {manifest.output}: one row gives"
                    f" {probabilities.dtype}{list(probabilities.shape)}, not float32[1, 2]"
                )
            if not np.isfinite(probabilities).all():
                raise ModelError(
                    f"{self.directory}: output {manifest.output}: not finite for a row of zeros"
                )


class _Predictor:
    """One of Paddle's predictors with its handles, looked up once."""

    def __init__(self, manifest: Manifest, native: Any) -> None:
        self._native = native
        self._slots = [native.get_input_handle(name) for name in manifest.sparse_inputs]
        self._dense = native.get_input_handle(manifest.dense_input)
        self._output = native.get_output_handle(manifest.output)

    def run(self, rows: NDArray[np.float32], dense: NDArray[np.float32]) -> NDArray[np.float32]:
        for handle, slot_rows in zip(self._slots, rows, strict=True):
            handle.copy_from_cpu(slot_rows)
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
    return inference


def _create_predictor(directory: Path, stem: str) -> Any:
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
        # Of the Criteo network, on one core: 0.1 ms more for one row, a third of the time for 50.
        config.enable_mkldnn()
        if program.suffix == ".json":
            config.enable_new_ir(True)
            config.enable_new_executor(True)
        return inference.create_predictor(config)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{program} and {weights.name}: {_first_line(error)}") from error


def _check_names(directory: Path, manifest: Manifest, native: Any) -> None:
    wanted = {*manifest.sparse_inputs, manifest.dense_input}
    found = set(native.get_input_names())
    if wanted != found:
        raise ModelError(
            f"{directory}: the inputs are not those of manifest.json: the model lacks"
            f" {_listed(wanted - found)}, the manifest lacks {_listed(found - wanted)}"
        )
    outputs = native.get_output_names()
    if manifest.output not in outputs:
        raise ModelError(
            f"{directory}: manifest.json: output: {manifest.output!r} is no output of the model,"
            f" which has {_listed(set(outputs))}"
        )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) if names else "none"


def _first_line(error: Exception) -> str:
    """Paddle's texts carry its own stack; the reason is the first line that is not its heading."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("In user code", "---"))]
    return said[0] if said else type(error).__name__
