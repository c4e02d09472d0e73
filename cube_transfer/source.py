"""Pulls a pass: everything it consists of, in a directory of the daemon's own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
from pydantic import BaseModel

from cube_core.conf.transfer_conf import DOWNLOAD_BYTES_MAX
from cube_core.errors import DeployError
from cube_core.replace_file import replace_file
from cube_transfer.local_source import pull_local
from cube_transfer.remote import scheme_of
from cube_transfer.remote_source import pull_remote, pull_remote_dense

_MARKER_NAME = "pulled.json"


class _PulledFile(BaseModel):
    size: int
    mtime_ns: int


class _Marker(BaseModel):
    """Written last: the pull is complete, and its files looked like this."""

    files: dict[str, _PulledFile]


class PulledPass:
    """A pass in `directory`: embedding files in `input`, the dense model in `dense`.

    Large local files are hard links, so that the trainer may delete its directory at any time;
    that it does not write into them is checked after the build.

    Args:
        download_bytes_max: of each file that another machine sends.
    """

    def __init__(self, directory: Path, download_bytes_max: int = DOWNLOAD_BYTES_MAX) -> None:
        self.directory = directory
        self._download_bytes_max = download_bytes_max
        self.input = directory / "input"
        self.dense = directory / "dense"

    async def pull_input(self, location: str, http: httpx.AsyncClient) -> None:
        """Pulls the embedding files; complete from an earlier run = nothing to do.

        Raises:
            DeployError: the pass is not there, or not as its manifest says.
            OSError, httpx.RequestError: try again.
        """
        if await asyncio.to_thread(self._marker) is not None:
            return
        url, path = _location(location)
        if url:
            await pull_remote(url, self.input, http, self._download_bytes_max)
            files = await asyncio.to_thread(self._files)
        else:
            files = _facts(await pull_local(path, self.input, link=True))
        await asyncio.to_thread(self._mark, files)

    async def pull_dense(self, location: str, http: httpx.AsyncClient) -> None:
        """Pulls the dense model; complete from an earlier run = nothing to do.

        Raises:
            DeployError, ModelError, OSError, httpx.RequestError: as `pull_input`.
        """
        if self.dense.is_dir():
            return
        url, path = _location(location)
        part = self.directory / "dense.part"
        await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
        if url:
            await pull_remote_dense(url, part, http, self._download_bytes_max)
        else:
            await pull_local(path, part, link=False)
        part.rename(self.dense)

    async def require_unchanged(self) -> None:
        """Raises DeployError when an embedding file was written to since it was pulled."""
        marker = await asyncio.to_thread(self._marker)
        found = await asyncio.to_thread(self._files)
        if marker is None or found != marker.files:
            raise DeployError(f"{self.input}: a file of the pass changed while it was built")

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def _files(self) -> dict[str, _PulledFile]:
        return _facts({path.name: path.stat() for path in self.input.iterdir()})

    def _mark(self, files: dict[str, _PulledFile]) -> None:
        replace_file(self.directory / _MARKER_NAME, _Marker(files=files).model_dump_json())

    def _marker(self) -> _Marker | None:
        try:
            return _Marker.model_validate_json((self.directory / _MARKER_NAME).read_bytes())
        except (FileNotFoundError, ValueError):
            return None


def _facts(stats: Mapping[str, os.stat_result]) -> dict[str, _PulledFile]:
    return {
        name: _PulledFile(size=stat.st_size, mtime_ns=stat.st_mtime_ns)
        for name, stat in stats.items()
    }


def _location(location: str) -> tuple[str, Path]:
    """URL ("" when local) and local path."""
    scheme = scheme_of(location)
    if scheme == "file":
        return "", Path(location.removeprefix("file://"))
    return (location, Path()) if scheme else ("", Path(location))
