"""`_manifest.json`: the files of an exported pass, so that a missing or shorter one is noticed.

{"format": 1, "files": [{"name": "part-00000", "size": bytes, "crc32c": of the whole file}, …]}
"""

from __future__ import annotations

import json
from pathlib import Path

from cube_builder.input_names import is_visible
from cube_core._native import crc32c_file
from cube_core.errors import BuildError
from cube_core.pass_files import MANIFEST_NAME

_FORMAT = 1


def write_manifest(directory: Path, names: list[str]) -> None:
    """Lists the files `names` of `directory`."""
    files = [
        {
            "name": name,
            "size": (directory / name).stat().st_size,
            "crc32c": crc32c_file(str(directory / name)),
        }
        for name in names
    ]
    manifest = json.dumps({"format": _FORMAT, "files": files}, indent=1) + "\n"
    (directory / MANIFEST_NAME).write_text(manifest, encoding="utf-8")


def check_against_manifest(directory: Path, files: list[Path]) -> None:
    """Compares names and sizes of the files of a pass with its manifest, if it has one.

    A SequenceFile that ends between two records is well-formed, so only the manifest can tell that
    it was longer. Checksums are for who moves the files; here every record is read anyway.

    Raises:
        BuildError: a file that is missing, not listed or of another size, or a manifest that
            cannot be read.
    """
    path = directory / MANIFEST_NAME
    if path.is_file():
        found = {
            str(each.relative_to(directory)): each.stat().st_size
            for file in files
            for each in (_visible_files(file) if file.is_dir() else [file])
        }
        compare_with_manifest(path.read_bytes(), found, str(directory))


def compare_with_manifest(content: bytes, found: dict[str, int], directory: str) -> None:
    """Compares sizes by name, relative to `directory`, with the bytes of its manifest.

    Raises:
        BuildError: as `check_against_manifest`.
    """
    # Most passes have no manifest, and its models take a while to be made.
    from cube_core.file_list import parse_file_list

    try:
        listed = {file.name: file.size for file in parse_file_list(content)}
    except ValueError as error:
        raise BuildError(f"{directory}/{MANIFEST_NAME}: no manifest of a pass: {error}") from error
    for name in sorted(listed.keys() | found.keys()):
        # A manifest need not say sizes.
        if name in listed and name in found and listed[name] in (None, found[name]):
            continue
        is_there = _size(found[name]) if name in found else "no such file"
        is_listed = _size(listed[name]) if name in listed else "no such file"
        raise BuildError(
            f"{directory}/{name}: {is_there}, but {MANIFEST_NAME} says {is_listed}; the pass is "
            "incomplete"
        )


def _visible_files(shard: Path) -> list[Path]:
    """Of the directory of a shard that the original wrote."""
    return [path for path in shard.iterdir() if path.is_file() and is_visible(path.name)]


def _size(size: int | None) -> str:
    return "that there is one" if size is None else f"{size} bytes"
