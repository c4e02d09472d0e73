"""Which dicts a data directory holds, when nobody says which to serve."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cube_core.errors import ControlError
from cube_server.store import DICT_NAME, DataDirectory


def found_dicts(data_dir: Path) -> tuple[str, ...]:
    """Names of the dicts in a data directory; "" first, for that of its own tables, if it has any
    or there is no dict at all. Each other one is a directory of its name.

    Raises:
        OSError: the directory cannot be read.
    """
    named = tuple(sorted(_named_dicts(data_dir)))
    return ("", *named) if not named or _holds_versions(DataDirectory(data_dir)) else named


def holds_dict(data_dir: Path, name: str) -> bool:
    """Whether there is a dict of this name beside versions, served or not.

    Raises:
        OSError: the directory cannot be read.
    """
    return _is_name(name) and _holds_versions(DataDirectory(data_dir / name, name))


def check_new_dict(data_dir: Path, name: str) -> None:
    """Checks that a dict of this name can have a directory beside versions.

    Raises:
        ControlError: it cannot.
    """
    if not _is_name(name):
        raise ControlError(
            f"dict_name {name!r}: use letters, digits, '_', '.' and '-', and no '.' first"
        )
    if next((data_dir / name).glob("*.table"), None) is not None:
        raise ControlError(f"dict_name {name!r}: {data_dir / name} holds tables of a version")


def _named_dicts(data_dir: Path) -> Iterator[str]:
    if not data_dir.is_dir():
        return
    for each in data_dir.iterdir():
        # A version's directory has tables; a dict's has directories of them.
        if each.is_dir() and holds_dict(data_dir, each.name):
            yield each.name


def _is_name(name: str) -> bool:
    return DICT_NAME.fullmatch(name) is not None and not name.startswith(".")


def _holds_versions(directory: DataDirectory) -> bool:
    named = any((directory.root / name).is_file() for name in ("VERSION", "WANTED"))
    return named or bool(directory.versions())
