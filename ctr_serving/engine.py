"""One dense model, loaded twice: each run takes the predictor that is faster for its rows."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ctr_serving.check_rows import check_recorded_rows
from ctr_serving.defaults import Defaults
from ctr_serving.joined_sizes import JoinedSizes
from ctr_serving.manifest import MANIFEST_NAME, Manifest, check_files, read_manifest
from ctr_serving.predictor import ONE_ROW_ONLY, Predictor, first_line
from ctr_serving.trial import OnednnSwitch, let_requests_pass
from cube_core.errors import ModelError, PredictionError

ROWS_PER_RUN_MAX = 256
"""Larger batches are run in parts of this size: a row costs no less in larger ones, and a run holds
the GIL, for about 1 ms at this size of the Criteo network."""

_OUTPUT_COLUMNS = 2
_onednn_switch = OnednnSwitch(never=ROWS_PER_RUN_MAX)


class Engine:
    """A loaded model: without oneDNN for few rows, with it for many.

    Of the Criteo network, on one core: 51 µs without and 91 with it for one row, 1,028 and 271 for
    50. Where the two meet is measured when a model is loaded.

    Attributes:
        directory: where it was loaded from, with no symbolic link in it.
        manifest: what it says of itself.
        default_rows: float32[slots, embedding_dim] for missing keys; None when they are zeros.
        embedding: what keeps the embedding version there; set before the model is served.
        load_seconds: time that loading and trying it out took.
        onednn_rows_min: rows from which oneDNN runs them.
        sizes: how often each number of rows was run.
    """

    def __init__(self, directory: Path, manifest: Manifest, plain: Predictor, onednn: Predictor):
        self.directory = directory
        self.manifest = manifest
        self.default_rows: NDArray[np.float32] | None = None
        self.embedding: object = None
        self.load_seconds = 0.0
        self.onednn_rows_min = ROWS_PER_RUN_MAX
        self.sizes: Counter[int] = Counter()
        self._joined_sizes = JoinedSizes(ROWS_PER_RUN_MAX)
        self._plain = plain
        self._onednn = onednn

    @classmethod
    def load(cls, directory: Path, defaults: Defaults = Defaults()) -> Engine:  # noqa: B008
        """Loads a model directory and tries it out: on a row of zeros, and on recorded rows where
        it has any.

        Imports Paddle, which takes about a second the first time.

        Raises:
            ModelError: a file is missing or corrupt, or the model does not fit its manifest; names
                the file and the field.
        """
        start_s = time.monotonic()
        directory = directory.resolve()
        manifest = read_manifest(directory)
        check_files(directory, manifest.files)
        default_rows = defaults.rows(
            manifest.slots,
            manifest.dict_name,
            manifest.embedding_dim,
            manifest.mean_row,
            where=str(directory / MANIFEST_NAME),
        )
        # Not clones of one: cloning holds the GIL for tens of milliseconds, loading does not.
        plain, onednn = (Predictor(directory, manifest, onednn=use) for use in (False, True))
        engine = cls(directory, manifest, plain, onednn)
        engine.default_rows = default_rows
        for predictor in (plain, onednn):
            engine._try_out(predictor)
        engine.onednn_rows_min = _onednn_switch.rows_min(plain.program, engine._run_zeros)
        engine.load_seconds = time.monotonic() - start_s
        return engine

    def predict(self, rows: NDArray[np.float32], dense: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs the model; holds the GIL for most of it, as Paddle does. One run at a time.

        Args:
            rows: float32[n, slots * embedding_dim], contiguous: the vectors of an instance slot by
                slot.
            dense: float32[n, dense_dim], contiguous; NaN and infinities pass through.

        Returns:
            probabilities float32[n, 2], n > 0.

        Raises:
            PredictionError: Paddle refused to run it.
        """
        self.sizes[len(dense)] += 1
        predictor = self._onednn if len(dense) >= self.onednn_rows_min else self._plain
        return self._run(predictor, rows, dense)

    def rows_to_run(self, rows_num: int) -> int:
        """The number of rows to run instead of so many that happen to be joined; see
        `JoinedSizes`."""
        return self._joined_sizes.rows_to_run(rows_num, self.onednn_rows_min)

    def warm_up(self, rows_num: int) -> None:
        """Runs zeros: what oneDNN prepares for a number of rows, some 2 ms of work, it keeps by
        thread, so that this belongs to the thread that predicts."""
        self._run_zeros(rows_num >= self.onednn_rows_min, rows_num)

    def _run(
        self, predictor: Predictor, rows: NDArray[np.float32], dense: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        try:
            return predictor.run(rows, dense)
        except (RuntimeError, ValueError) as error:
            raise PredictionError(f"{self.directory}: {first_line(error)}") from error

    def _run_zeros(self, with_onednn: bool, rows_num: int) -> None:
        self._run(self._onednn if with_onednn else self._plain, *self._zeros(rows_num))

    def _zeros(self, rows_num: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        manifest = self.manifest
        return (
            np.zeros((rows_num, manifest.slots * manifest.embedding_dim), np.float32),
            np.zeros((rows_num, manifest.dense_dim), np.float32),
        )

    def _try_out(self, predictor: Predictor) -> None:
        """On recorded rows where the model has any; where it has none, or to find out why it fails
        there, on zeros."""
        try:
            if check_recorded_rows(self.directory, self.manifest, predictor) > 1:
                return
        except ModelError:
            self._check_zeros(predictor)
            raise
        self._check_zeros(predictor)

    def _check_zeros(self, predictor: Predictor) -> None:
        """Checks what it answers for one row of zeros, and that it takes two at once."""
        manifest = self.manifest
        probabilities = self._try_zeros(
            predictor,
            1,
            f"run with embedding_dim={manifest.embedding_dim} and dense_dim={manifest.dense_dim}"
            " of manifest.json",
        )
        output = f"{self.directory}: output {manifest.output}"
        if probabilities.shape != (1, _OUTPUT_COLUMNS) or probabilities.dtype != np.float32:
            raise ModelError(
                f"{output}: one row gives {probabilities.dtype}{list(probabilities.shape)}, not"
                " float32[1, 2]"
            )
        if not np.isfinite(probabilities).all():
            raise ModelError(f"{output}: not finite for a row of zeros")
        shape = self._try_zeros(predictor, 2, ONE_ROW_ONLY).shape
        if shape != (2, _OUTPUT_COLUMNS):
            raise ModelError(f"{self.directory}: two rows give {list(shape)} ({ONE_ROW_ONLY})")

    def _try_zeros(self, predictor: Predictor, rows_num: int, hint: str) -> NDArray[np.float32]:
        try:
            return self._run(predictor, *self._zeros(rows_num))
        except PredictionError as error:
            raise ModelError(f"{error} ({hint})") from error
        finally:
            let_requests_pass()
