"""Keeps the directories of the daemon small: the newest versions stay, the rest goes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from cube_core.errors import ControlError
from cube_core.versions import Version

log = logging.getLogger(__name__)


def remove_versions(directory: Path, known: Collection[str], keep: Collection[str]) -> None:
    """Removes the directories `<directory>/<version>` of versions that are `known`, so this
    daemon's own, and not to `keep`. Anything else in the directory is not touched."""
    for path in _version_directories(directory):
        if path.name in known and path.name not in keep:
            log.info("removing %s: older than the versions to keep", path)
            shutil.rmtree(path, ignore_errors=True)


def remove_build_leftovers(directory: Path, known: Collection[str]) -> None:
    """Removes what builders that were killed left beside their output; none may be running."""
    for path in directory.glob(".*.staging"):
        if any(path.name.startswith(f".{version}.") for version in known):
            shutil.rmtree(path, ignore_errors=True)


def remove_all_but(directory: Path, keep: Collection[str]) -> None:
    """Removes every entry of a directory that is the daemon's alone, but those named."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        if path.name in keep:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _version_directories(directory: Path) -> list[Path]:
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if path.is_dir() and _is_version(path)]


def _is_version(path: Path) -> bool:
    try:
        return not path.is_symlink() and str(Version.parse(path.name)) == path.name
    except ControlError:
        return False
