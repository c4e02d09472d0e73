"""The published dense model over HTTP, for CTR servers that do not share its directory."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Header, HTTPException, Response
from fastapi.responses import FileResponse

from cube_core._native import crc32c_file
from cube_core.file_list import ListedFile
from cube_core.model_directory import ListedModel, is_version, published_version

MODELS_PATH = "/models"

_Facts = tuple[str, tuple[tuple[str, int, int], ...]]


class PublishedModel:
    """What is published in `deploy_path`, with the checksums of its files, read once a model.
    Thread-safe."""

    def __init__(self, deploy_path: Path) -> None:
        self._deploy_path = deploy_path
        self._facts: _Facts = ("", ())
        self._files: list[ListedFile] = []
        self._lock = threading.Lock()

    def look(self) -> tuple[str, list[ListedFile]]:
        """The version and its files; "" and none before the first.

        Raises:
            OSError: a file cannot be read.
        """
        with self._lock:
            return self._look()

    def _look(self) -> tuple[str, list[ListedFile]]:
        version = published_version(self._deploy_path)
        if not version:
            return "", []
        paths = sorted(self._deploy_path.joinpath(version).iterdir())
        stats = [(path, path.stat()) for path in paths if _is_shown(path)]
        facts = (version, tuple((path.name, s.st_size, s.st_mtime_ns) for path, s in stats))
        if facts != self._facts:
            self._files = [
                ListedFile(name=path.name, size=stat.st_size, crc32c=crc32c_file(str(path)))
                for path, stat in stats
            ]
            self._facts = facts
        return version, self._files


def model_router(deploy_path: Path | None, dependencies: Sequence[Any]) -> APIRouter:
    """`GET /models/current`: version and files; `GET /models/<version>/<file>`: one of them.

    Args:
        deploy_path: `model_deploy_path`; None: nothing is published.
    """
    router = APIRouter(prefix=MODELS_PATH, dependencies=list(dependencies))
    published = None if deploy_path is None else PublishedModel(deploy_path)

    @router.get("/current")
    async def current(if_none_match: str = Header("")) -> Response:
        version, files = await asyncio.to_thread(published.look) if published else ("", [])
        if not version:
            raise HTTPException(404, "no dense model is published")
        body = ListedModel(version=version, files=tuple(files)).model_dump_json(exclude_none=True)
        etag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        if if_none_match == etag:
            return Response(status_code=304, headers={"etag": etag})
        return Response(body, media_type="application/json", headers={"etag": etag})

    @router.get("/{version}/{name}")
    async def file(version: str, name: str) -> FileResponse:
        path = deploy_path / version / name if deploy_path is not None else None
        if path is None or not is_version(version) or not _is_shown(path):
            raise HTTPException(404, f"{version}/{name}: no such file of a model")
        return FileResponse(path, media_type="application/octet-stream")

    return router


def _is_shown(path: Path) -> bool:
    """Whether it is a file of a model; hidden ones are of whoever looks after the directory."""
    return not path.name.startswith(".") and path.is_file()
