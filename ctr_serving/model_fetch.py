"""Brings the dense model that a transfer daemon publishes to a directory of this machine."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import httpx

from cube_core.errors import ModelError
from cube_core.file_list import Digest, ListedFile, file_problem
from cube_core.log import fields as log_fields
from cube_core.model_directory import (
    ListedModel,
    is_published,
    is_version,
    publish_staged,
    published_version,
    remove_unfinished_publications,
    staging_path,
)
from cube_core.tls import Renewed

MODEL_BYTES_MAX = 64 << 30
"""Largest sum of the files of a model."""

_TIMEOUT = httpx.Timeout(30.0, connect=5.0)
_PAUSE_MAX_S = 10.0
_LOCK_NAME = ".fetching.lock"
_PIECE_BYTES = 1 << 20

log = logging.getLogger(__name__)


class ModelFetcher:
    """Asks `url` again and again which model is published, and publishes it in `directory` in the
    same form, whole and checked. The one before stays there.

    Of several processes that fetch to one directory only one does.

    Args:
        url: "http://<daemon>/models".
        clients: what asks it; closed at the end.
        tell: told why the newest model is not here; "" when it is.
    """

    def __init__(
        self,
        url: str,
        directory: Path,
        clients: Renewed[httpx.AsyncClient],
        tell: Callable[[str], None],
    ) -> None:
        self._url = url.rstrip("/")
        self._directory = directory
        self._clients = clients
        self._tell = tell
        self._problem = ""
        self._etag = ""
        self._lock: int | None = None

    async def run(self, interval_s: float) -> None:
        """Looks at every interval until cancelled, and less often while nothing comes of it."""
        pause_s = interval_s
        try:
            with log_fields(model_url=self._url):
                while True:
                    await self._look()
                    pause_s = min(2 * pause_s, _PAUSE_MAX_S) if self._problem else interval_s
                    await asyncio.sleep(pause_s)
        finally:
            if self._lock is not None:
                os.close(self._lock)
            await self._clients.get().aclose()

    async def _look(self) -> None:
        problem = ""
        try:
            if await asyncio.to_thread(self._has_lock):
                await self.poll()
        except (ModelError, OSError, httpx.HTTPError, httpx.InvalidURL) as error:
            problem = f"{self._url}: {error or type(error).__name__}"
        if problem and problem != self._problem:
            log.warning("the model is not fetched: %s", problem)
        self._problem = problem
        self._tell(problem)

    async def poll(self) -> None:
        """Looks once, and fetches when there is another model than here.

        Raises:
            ModelError: the answer is no model, or a file is not what it says.
            OSError, httpx.HTTPError: it may go better next time.
        """
        for each in self._clients.outlived():
            await each.aclose()
        answer = await self._clients.get().get(
            f"{self._url}/current", headers={"if-none-match": self._etag}, timeout=_TIMEOUT
        )
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return
        if answer.status_code != httpx.codes.OK:
            raise ModelError(f"the answer is HTTP {answer.status_code}: {answer.text[:200]}")
        try:
            model = ListedModel.parse(answer.content)
        except ValueError as error:
            raise ModelError(f"/current: {error}") from error
        if not await asyncio.to_thread(self._is_here, model):
            await self._fetch(model)
        self._etag = answer.headers.get("etag", "")

    def _has_lock(self) -> bool:
        if self._lock is None:
            self._directory.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._directory / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return False
            self._lock = lock
            remove_unfinished_publications(self._directory)
        return True

    def _is_here(self, model: ListedModel) -> bool:
        here = self._directory / model.version
        # Who was killed between the two names of a model left the signs, and no model.
        if not is_published(self._directory, model.version) or not here.is_dir():
            return False
        names = {path.name for path in here.iterdir()}
        return names == {file.name for file in model.files} and not any(
            file_problem(here / file.name, file) for file in model.files
        )

    async def _fetch(self, model: ListedModel) -> None:
        if sum(file.size or 0 for file in model.files) > MODEL_BYTES_MAX:
            raise ModelError(f"model {model.version} is over MODEL_BYTES_MAX={MODEL_BYTES_MAX}")
        before = published_version(self._directory)
        staging = await asyncio.to_thread(staging_path, self._directory, model.version)
        try:
            for file in model.files:
                url = f"{self._url}/{model.version}/{quote(file.name)}"
                await self._fetch_file(url, staging, file)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, staging, ignore_errors=True)
            raise
        await asyncio.to_thread(_publish, staging, model.version)
        await asyncio.to_thread(self._remove_all_but, (model.version, before))
        log.info("model %s is here", model.version, extra={"fields": {"version": model.version}})

    async def _fetch_file(self, url: str, staging: Path, file: ListedFile) -> None:
        digest = Digest(file)
        async with self._clients.get().stream("GET", url, timeout=_TIMEOUT) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ModelError(f"{file.name}: the answer is HTTP {answer.status_code}")
            with (staging / file.name).open("xb") as target:
                async for piece in answer.aiter_raw(_PIECE_BYTES):
                    digest.update(piece)
                    if file.size is None or digest.size > file.size:
                        raise ModelError(f"{file.name}: is longer than was said")
                    await asyncio.to_thread(target.write, piece)
        problem = digest.problem()
        if problem:
            raise ModelError(f"{file.name}: {problem}")

    def _remove_all_but(self, versions: Sequence[str]) -> None:
        for path in self._directory.iterdir():
            if path.is_dir() and is_version(path.name) and path.name not in versions:
                shutil.rmtree(path, ignore_errors=True)


def _publish(staging: Path, version: str) -> None:
    """In one thread: who waits for it may be stopped, and nobody else may remove what it moves."""
    try:
        publish_staged(staging, version)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
