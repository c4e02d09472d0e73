"""Recorded rows beside a model: what it must answer before it is served."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from ctr_serving.manifest import Manifest
from ctr_serving.predictor import Predictor, first_line
from ctr_serving.trial import let_requests_pass
from cube_core.errors import ModelError

CHECK_ROWS_NAME = "check_rows.npz"
_TOLERANCE = 1e-4


def check_recorded_rows(directory: Path, manifest: Manifest, predictor: Predictor) -> int:
    """Runs the rows of `check_rows.npz`, if the model has that file, and compares the answers.

    The file holds `embeddings float32[n, slots * embedding_dim]`, `dense float32[n, dense_dim]` and
    `probabilities float32[n, 2]`, as numpy.savez writes them.

    Returns:
        how many rows there are; 0 without the file.

    Raises:
        ModelError: the file is malformed, or an answer differs by more than 1e-4; names the row.
    """
    path = directory / CHECK_ROWS_NAME
    if not path.is_file():
        return 0
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as recorded:
            rows, dense, wanted = (
                np.ascontiguousarray(recorded[name], np.float32)
                for name in ("embeddings", "dense", "probabilities")
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: is no file of recorded rows: {error}") from error
    count = len(rows)
    shapes = {
        "embeddings": (rows.shape, (count, manifest.slots * manifest.embedding_dim)),
        "dense": (dense.shape, (count, manifest.dense_dim)),
        "probabilities": (wanted.shape, (count, 2)),
    }
    for name, (found_shape, wanted_shape) in shapes.items():
        if found_shape != wanted_shape or not count:
            raise ModelError(f"{path}: {name} is {list(found_shape)}, not {list(wanted_shape)}")
    try:
        found = predictor.run(rows, dense)
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{path}: cannot be run: {first_line(error)}") from error
    finally:
        let_requests_pass()
    if found.shape != wanted.shape:
        raise ModelError(f"{path}: {count} rows give {list(found.shape)}, not {[count, 2]}")
    # Written so that NaN is wrong too.
    wrong = np.flatnonzero(~(np.abs(found - wanted) <= _TOLERANCE).all(axis=1))
    if wrong.size:
        row = int(wrong[0])
        raise ModelError(
            f"{path}: row {row}: the model answers {found[row].tolist()}, recorded are"
            f" {wanted[row].tolist()}"
        )
    return count
