"""Paddle embeddings to SequenceFile passes; the row's index is the key."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_builder.manifest import write_manifest
from cube_builder.paddle_variable import map_variable
from cube_builder.pdparams import read_arrays
from cube_builder.staging import staged_directory
from cube_core._native import SequenceFileWriter
from cube_core.errors import BuildError
from cube_core.pass_files import MANIFEST_NAME

ROWS_PER_FILE = 10_000_000

_ROWS_PER_BATCH = 65_536
_DIM_MAX = 65_535 // 4
_PICKLE_MARK = b"\x80"

Rows = NDArray[np.float32]


def load_embedding(path: Path, entry: str | None = None) -> Rows:
    """Rows float32[n, dim] of an embedding that Paddle saved.

    Args:
        path: a `.pdparams` file, or one variable in Paddle's binary format.
        entry: name in the `.pdparams`; may be left out when only one entry is a float32 matrix.

    Raises:
        BuildError: not such a file, no such entry, or no float32 matrix.
    """
    if not path.is_file():
        raise BuildError(f"{path}: no such file")
    with path.open("rb") as file:
        is_pickle = file.read(1) == _PICKLE_MARK
    if is_pickle:
        return _choose(path, read_arrays(path), entry)
    if entry is not None:
        raise BuildError(f"{path}: holds a single variable, so --entry has no meaning here")
    return _require_rows(str(path), map_variable(path))


def export_rows(
    rows: Rows,
    directory: Path,
    *,
    dialect: str = "hadoop",
    rows_per_file: int = ROWS_PER_FILE,
    on_rows: Callable[[int], None] | None = None,
) -> list[Path]:
    """Writes rows float32[n, dim] as SequenceFiles `part-00000`… and `_manifest.json`.

    The directory appears whole, in the place of an earlier export.

    Args:
        dialect: "hadoop" or "paddle".
        on_rows: told the number of rows written so far.

    Returns:
        the part files.

    Raises:
        BuildError: rows that make no pass, or a directory that holds something else.
        OSError: the disk.
    """
    rows = _require_rows("the embedding", rows)
    if rows_per_file < 1:
        raise BuildError(f"rows_per_file {rows_per_file}: must be over 0")
    if dialect not in ("hadoop", "paddle"):
        raise BuildError(f"dialect {dialect!r}: must be hadoop or paddle")
    names: list[str] = []
    with staged_directory(directory, _check_replaceable) as staging:
        for number, start in enumerate(range(0, len(rows), rows_per_file)):
            name = f"part-{number:05d}"
            end = min(start + rows_per_file, len(rows))
            _write_part(staging / name, rows, start, end, dialect, on_rows)
            names.append(name)
        write_manifest(staging, names)
    return [directory / name for name in names]


def _choose(path: Path, arrays: dict[str, NDArray[Any]], entry: str | None) -> Rows:
    if entry is not None:
        if entry not in arrays:
            raise BuildError(f"{path}: no entry {entry!r}; it has {_listed(arrays)}")
        return _require_rows(f"{path}: entry {entry!r}", arrays[entry])
    matrices = [name for name, array in arrays.items() if _is_rows(array)]
    if len(matrices) != 1:
        raise BuildError(
            f"{path}: {len(matrices)} float32 matrices, so name one with --entry; it has "
            f"{_listed(arrays)}"
        )
    return _require_rows(path.name, arrays[matrices[0]])


def _listed(arrays: dict[str, NDArray[Any]]) -> str:
    shown = [f"{name!r} {array.dtype}{list(array.shape)}" for name, array in arrays.items()]
    return ", ".join(shown[:20]) + (", …" if len(shown) > 20 else "") if shown else "no arrays"


def _is_rows(array: NDArray[Any]) -> bool:
    return array.ndim == 2 and array.size > 0 and array.dtype == np.float32


def _require_rows(name: str, array: NDArray[Any]) -> Rows:
    if not _is_rows(array):
        raise BuildError(
            f"{name}: {array.dtype}{list(array.shape)} is no float32 matrix of at least one row"
        )
    if array.shape[1] > _DIM_MAX:
        raise BuildError(f"{name}: rows of {array.shape[1]} elements, supported are {_DIM_MAX}")
    return array


def _batches(rows: Rows, start: int, end: int) -> Iterator[tuple[int, Rows]]:
    for first in range(start, end, _ROWS_PER_BATCH):
        batch = rows[first : min(first + _ROWS_PER_BATCH, end)]
        yield first, np.ascontiguousarray(batch, dtype="<f4")


def _write_part(
    path: Path,
    rows: Rows,
    start: int,
    end: int,
    dialect: str,
    on_rows: Callable[[int], None] | None,
) -> None:
    with SequenceFileWriter(str(path), dialect=dialect) as writer:
        for first, batch in _batches(rows, start, end):
            keys = np.arange(first, first + len(batch), dtype=np.uint64)
            writer.append(keys, batch.view(np.uint8))
            if on_rows is not None:
                on_rows(first + len(batch))


def _check_replaceable(directory: Path) -> None:
    if not (directory / MANIFEST_NAME).is_file():
        raise BuildError(
            f"{directory}: exists and is no export of cube-builder; remove it or choose another "
            "output_path"
        )
