"""A disk of half a megabyte, to be filled."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_BLOCK_BYTES = 4096


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[None]:
    """Mounts one at `directory`; skips the test where that is not allowed."""
    directory.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "none", str(directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        # Also while a server that is about to end holds files of it.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Leaves no room; returns the file that takes it."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(_BLOCK_BYTES)) == _BLOCK_BYTES:
            pass
    return path
