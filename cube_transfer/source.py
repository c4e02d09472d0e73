"""Pulls a pass: everything it consists of, in a directory of the daemon's own."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import httpx
from pydantic import BaseModel

from cube_core.errors import DeployError
from cube_core.replace_file import replace_file
from cube_transfer.input_roots import InputRoots
from cube_transfer.local_source import pull_local, pull_local_dense
from cube_transfer.pass_bytes import ByteLimits, PassBytes
from cube_transfer.remote import is_local, local_path
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
        roots: where passes may lie.
    """

    def __init__(
        self,
        directory: Path,
        limits: ByteLimits | None = None,
        roots: InputRoots | None = None,
    ) -> None:
        self.directory = directory
        self._limits = limits or ByteLimits()
        self._roots = roots or InputRoots()
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
        room = PassBytes(self._limits, await asyncio.to_thread(_bytes_in, self.dense))
        if is_local(location):
            await asyncio.to_thread(shutil.rmtree, self.input, ignore_errors=True)
            path = local_path(location)
            files = _facts(await pull_local(path, self.input, room, self._roots))
        else:
            self._roots.require_url(location)
            await pull_remote(location, self.input, http, room, self._roots.require_url)
            files = await asyncio.to_thread(self._files)
        await asyncio.to_thread(self._mark, files)

    async def pull_dense(self, location: str, http: httpx.AsyncClient) -> None:
        """Pulls the dense model; complete from an earlier run = nothing to do.

        Raises:
            DeployError, ModelError, OSError, httpx.RequestError: as `pull_input`.
        """
        if self.dense.is_dir():
            return
        part = self.directory / "dense.part"
        room = PassBytes(self._limits)
        if is_local(location):
            await asyncio.to_thread(shutil.rmtree, part, ignore_errors=True)
            await pull_local_dense(local_path(location), part, room, self._roots)
        else:
            self._roots.require_url(location)
            await pull_remote_dense(location, part, http, room, self._roots.require_url)
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
        return _facts(_stats_below(self.input))

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


def _stats_below(directory: Path) -> dict[str, os.stat_result]:
    """Of every file, by its name relative to the directory."""
    paths = (path for path in directory.rglob("*") if not path.is_dir())
    return {str(path.relative_to(directory)): path.stat() for path in paths}


def _bytes_in(directory: Path) -> int:
    return sum(stat.st_size for stat in _stats_below(directory).values())
