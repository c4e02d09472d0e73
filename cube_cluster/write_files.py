"""Writes configuration files, but never over one that somebody wrote by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cube_cluster.conf_files import MARK
from cube_core.errors import ConfError
from cube_core.replace_file import replace_file


def differing(directory: Path, files: Mapping[str, str]) -> list[str]:
    """Names of those files that are not there as they should be."""
    return [name for name, text in files.items() if _read(directory / name) != text]


def write_files(directory: Path, files: Mapping[str, str], *, force: bool = False) -> list[str]:
    """Replaces what differs, each file whole; returns the names of those.

    Args:
        force: also replace files that were not written by this.

    Raises:
        ConfError: a file is there that was not; nothing is written then.
        OSError: it cannot be written.
    """
    changed = differing(directory, files)
    for name in changed:
        found = _read(directory / name)
        if found is not None and MARK not in found and not force:
            problem = "was not written by `cube config`; name another --output, or give --force"
            raise ConfError(str(directory / name), "", problem)
    directory.mkdir(parents=True, exist_ok=True)
    for name in changed:
        replace_file(directory / name, files[name])
    return changed


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return ""
