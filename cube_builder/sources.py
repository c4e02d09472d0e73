"""The SequenceFiles of a pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core._native import SequenceFileReader
from cube_core.errors import BuildError

Batch = tuple[NDArray[np.uint64], NDArray[np.uint8]]

_BATCH_BYTES = 8 << 20


def source_files(input_path: Path) -> list[Path]:
    """The files of a pass in natural order (`part-2` before `part-10`).

    A directory is searched with its subdirectories; names that begin with `_` or `.` are skipped,
    as Hadoop's readers do.

    Raises:
        BuildError: no such path, a directory without files, or what is no regular file in it.
    """
    if input_path.is_file():
        return [input_path]
    if not input_path.is_dir():
        raise BuildError(f"{input_path}: no such file or directory")
    found: list[Path] = []
    for directory, subdirectories, names in os.walk(input_path, onerror=_raise):
        subdirectories[:] = [name for name in subdirectories if _is_visible(name)]
        found.extend(Path(directory, name) for name in names if _is_visible(name))
    if not found:
        raise BuildError(
            f"{input_path}: holds no SequenceFile (names that begin with '_' or '.' are skipped)"
        )
    for path in found:
        if not path.is_file():
            raise BuildError(f"{path}: no regular file")
    return sorted(found, key=lambda path: _natural_order(str(path)))


def common_width(files: list[Path]) -> int:
    """Width in bytes of the values of all files, told by the first record of each.

    Raises:
        BuildError: two files differ, or none has a record; names the files.
        SequenceFileError: a file that is not read.
    """
    width, width_file = 0, files[0]
    for path in files:
        found = SequenceFileReader(str(path)).value_bytes
        if width and found and found != width:
            raise BuildError(
                f"{path}: values of {found} bytes, but those of {width_file} have {width}; "
                "a pass has one width"
            )
        if found and not width:
            width, width_file = found, path
    if not width:
        raise BuildError(f"{files[0]}: no records in it or in any of the {len(files)} input files")
    return width


def read_batches(path: Path) -> Iterator[tuple[Batch, int]]:
    """Yields keys uint64[m] and values uint8[m, width] of some 8 MiB, and the bytes of the file
    consumed so far."""
    reader = SequenceFileReader(str(path))
    records_max = max(1, _BATCH_BYTES // (reader.value_bytes + 8))
    while True:
        keys, values = reader.read(records_max)
        if not len(keys):
            return
        yield (keys, values), reader.offset


def _is_visible(name: str) -> bool:
    return not name.startswith(("_", "."))


def _natural_order(name: str) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def _raise(error: OSError) -> None:
    raise error
