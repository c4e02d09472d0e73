"""Replaces a file or a symbolic link whole, also across a crash."""

from __future__ import annotations

import os
from pathlib import Path

from cube_core import _native


def replace_file(path: Path, text: str) -> None:
    """Writes `text` beside `path`, fsyncs, and renames it into place."""
    temporary = path.with_name(f".{path.name}.tmp")
    _native.replace_file(str(path), str(temporary), text.encode())


def replace_link(path: Path, destination: str) -> None:
    """Points the symbolic link `path` at `destination`, in one step."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(destination)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes renames in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
