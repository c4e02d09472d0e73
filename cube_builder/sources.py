"""The input files of a pass."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from cube_builder.arrow_source import ArrowSource
from cube_builder.batches import ONE_WIDTH, Source
from cube_builder.input_names import INDEX_NAME, is_visible
from cube_builder.original_source import OriginalSource
from cube_builder.sequence_source import SequenceSource
from cube_core.errors import BuildError

_ARROW_KINDS = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow stream"}
_MAGIC_BYTES = 6


def source_files(input_path: Path) -> list[Path]:
    """The files of a pass in natural order (`part-2` before `part-10`).

    A directory is searched with its subdirectories; names that begin with `_` or `.` are skipped,
    as Hadoop's readers do. Directories of shards that the original cube-builder wrote are each one
    input; where there are any, other files (the archives beside them) are none.

    Raises:
        BuildError: no such path, a directory without files, or what is no regular file in it.
    """
    if input_path.is_file():
        return [input_path]
    if not input_path.is_dir():
        raise BuildError(f"{input_path}: no such file or directory")
    found: list[Path] = []
    original: list[Path] = []
    for directory, subdirectories, names in os.walk(input_path, onerror=_raise):
        if INDEX_NAME in names:
            original.append(Path(directory))
        subdirectories[:] = [name for name in subdirectories if is_visible(name)]
        found.extend(Path(directory, name) for name in names if is_visible(name))
    if original:
        return in_natural_order(original)
    if not found:
        raise BuildError(
            f"{input_path}: holds no input file (names that begin with '_' or '.' are skipped)"
        )
    for path in found:
        if not path.is_file():
            raise BuildError(f"{path}: no regular file")
    return in_natural_order(found)


def open_source(path: Path, *, deletions: bool = False) -> Source:
    """Opens what `source_files` found.

    Args:
        deletions: as the input of a delta, in which keys without a value are deleted.

    Raises:
        SequenceFileError: not a file that is read, or malformed.
        BuildError: an input that cannot be used (named), or whose library is not installed.
    """
    if path.is_dir():
        return OriginalSource(path)
    with path.open("rb") as file:
        magic = file.read(_MAGIC_BYTES)
    for begin, kind in _ARROW_KINDS.items():
        if magic.startswith(begin):
            return ArrowSource(path, kind, deletions=deletions)
    return SequenceSource(path, deletions=deletions)


def common_width(sources: Iterable[Source], *, default: int = 0) -> int:
    """Width in bytes of the values of all sources, told by the first record of each.

    Args:
        default: the width when none has a value.

    Raises:
        BuildError: two differ, or none has a value and there is no default; names the files.
    """
    width, width_path = 0, Path()
    paths: list[Path] = []
    for source in sources:
        paths.append(source.path)
        found = source.value_bytes
        if width and found and found != width:
            raise BuildError(
                f"{source.path}: values of {found} bytes, but those of {width_path} have {width}; "
                f"{ONE_WIDTH}"
            )
        if found and not width:
            width, width_path = found, source.path
    if not width and not default:
        raise no_records(paths)
    return width or default


def no_records(paths: list[Path]) -> BuildError:
    """What to raise when no input file has a record."""
    return BuildError(f"{paths[0]}: no records in it or in any of the {len(paths)} input files")


def in_natural_order(paths: list[Path]) -> list[Path]:
    """Sorted with numbers inside names by their value."""
    return sorted(paths, key=lambda path: _natural_order(str(path)))


def _natural_order(name: str) -> list[tuple[int, str]]:
    pieces = re.split(r"(\d+)", name)
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces]


def _raise(error: OSError) -> None:
    raise error
