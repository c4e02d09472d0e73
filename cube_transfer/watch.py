"""Watches a donefile, in a local directory or on another machine."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import httpx
from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from cube_core.errors import ConfError, DeployError
from cube_transfer.backoff import until_done
from cube_transfer.donefile import DonefileReading, parse_donefile
from cube_transfer.part_file import BytesSink
from cube_transfer.remote import NotThereError, RemoteFiles, remote_files, scheme_of, shown

log = logging.getLogger(__name__)

DONEFILE_BYTES_MAX = 64 << 20


class DonefileWatch:
    """Keeps `reading` equal to what the donefile says, and sets `changed` when it says more.

    Args:
        address: the file, a path or a URL of any scheme that passes have.
        poll_interval_ms: how often to look; changes of a local file are seen sooner.
        changed: of whoever waits for several donefiles.
        of_patches: whether it lists patches.

    Raises:
        ConfError: another scheme, or a library for it is not installed.
    """

    def __init__(
        self,
        address: str,
        poll_interval_ms: int,
        http: httpx.AsyncClient,
        changed: asyncio.Event | None = None,
        *,
        of_patches: bool = False,
    ) -> None:
        self.address = address
        self.reading = DonefileReading()
        self.error = ""
        """Why the donefile cannot be read at present."""
        self.is_missing = False
        """That reason is that nobody has written one yet."""
        self.changed = changed or asyncio.Event()
        self._interval_ms = poll_interval_ms
        self._parse = functools.partial(parse_donefile, address=address, of_patches=of_patches)
        self._data: bytes | None = None
        self._logged: set[str] = set()
        self._source = _source(self.address, http)

    async def run(self) -> None:
        """Watches until cancelled."""
        async for _ in self._source.ticks(self._interval_ms):
            try:
                data = await until_done(self._source.read, on_failure=self._note_failure)
            except _NotThereYetError:
                self.is_missing = True
                # No fault before the first pass, so the next look is not put off.
                self.error = f"{shown(self.address)}: no such file yet"
                self._log_once(logging.INFO, self.error)
                continue
            self._logged.discard(self.error)
            self.error, self.is_missing = "", False
            if data is not None and data != self._data:
                self._data = data
                self._take(await asyncio.to_thread(self._parse, data))

    def _take(self, reading: DonefileReading) -> None:
        self.reading = reading
        for error in reading.errors:
            self.tell_once(str(error))
        self.changed.set()

    def tell_once(self, problem: str) -> None:
        """Writes to the log what is wrong with the file, unless it is there already."""
        self._log_once(logging.WARNING, problem)

    def _note_failure(self, error: BaseException, attempt: int) -> None:
        self.error = f"{shown(self.address)}: {error or type(error).__name__}"
        self.tell_once(self.error)

    def _log_once(self, level: int, text: str) -> None:
        if text not in self._logged:
            self._logged.add(text)
            log.log(level, "donefile: %s", text)


class _NotThereYetError(Exception):
    """The donefile does not exist."""


class _LocalFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_unwatched = False

    async def read(self) -> bytes:
        return await asyncio.to_thread(self._read)

    def _read(self) -> bytes:
        try:
            if self._path.stat().st_size > DONEFILE_BYTES_MAX:
                raise _too_large()
            return self._path.read_bytes()
        except FileNotFoundError as error:
            raise _NotThereYetError from error

    async def ticks(self, interval_ms: int) -> AsyncIterator[None]:
        """Yields at once, after each change in the directory, and every `interval_ms`; where the
        directory cannot be watched, only that often."""
        yield
        while True:
            inode = _inode(self._path.parent)
            if inode is None:
                await asyncio.sleep(interval_ms / 1000)
                yield
                continue
            try:
                async with contextlib.aclosing(_changes(self._path.parent, interval_ms)) as changes:
                    async for _ in changes:
                        yield
                        # A directory that was replaced sends no events to the old watch.
                        if _inode(self._path.parent) != inode:
                            break
            except (OSError, WatchfilesRustInternalError) as error:
                self._tell_unwatched(error)
                await asyncio.sleep(interval_ms / 1000)
                yield

    def _tell_unwatched(self, error: BaseException) -> None:
        """Of inotify each user has only so much, whoever uses it up."""
        if not self._is_unwatched:
            log.warning(
                "donefile: %s: changes are seen every poll_interval_ms only: %s",
                self._path.parent,
                error,
            )
        self._is_unwatched = True


async def _changes(directory: Path, interval_ms: int) -> AsyncGenerator[None, None]:
    """Yields when the watch stands, for what was written before; then after each change, and every
    `interval_ms`."""
    changes = awatch(
        directory,
        recursive=False,
        watch_filter=None,
        debounce=100,
        step=20,
        rust_timeout=interval_ms,
        yield_on_timeout=True,
    )
    first = asyncio.ensure_future(anext(changes))
    try:
        # The generator sets the watch up before it waits for the first time.
        await asyncio.sleep(0)
        yield
        await first
        yield
        async for _ in changes:
            yield
    finally:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await changes.aclose()


class _HttpFile:
    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url
        self._http = http
        # Of the validators only the ETag: Last-Modified is blind to a second change in one second.
        self._etag: dict[str, str] = {}

    async def read(self) -> bytes | None:
        """The file, or None when it is as it was."""
        request = self._http.stream("GET", self._url, headers=self._etag)
        async with request as response:
            if response.status_code == httpx.codes.NOT_MODIFIED:
                return None
            if response.status_code == httpx.codes.NOT_FOUND:
                raise _NotThereYetError
            if response.status_code != httpx.codes.OK:
                raise OSError(f"HTTP {response.status_code} {response.reason_phrase}")
            data = bytearray()
            async for block in response.aiter_bytes():
                data += block
                if len(data) > DONEFILE_BYTES_MAX:
                    raise _too_large()
        etag = response.headers.get("etag")
        self._etag = {"if-none-match": etag} if etag else {}
        return bytes(data)

    async def ticks(self, interval_ms: int) -> AsyncIterator[None]:
        while True:
            yield
            await asyncio.sleep(interval_ms / 1000)


class _RemoteFile:
    """Of a source that cannot say whether a file changed: read whole each time."""

    def __init__(self, url: str, files: RemoteFiles) -> None:
        self._url = url
        self._files = files

    async def read(self) -> bytes:
        sink = BytesSink(DONEFILE_BYTES_MAX, "DONEFILE_BYTES_MAX")
        try:
            await self._files.fetch(self._url, sink)
        except NotThereError as error:
            raise _NotThereYetError from error
        except DeployError as error:
            # A password may be put right, and the donefile comes back.
            raise OSError(str(error)) from error
        return bytes(sink.data)

    async def ticks(self, interval_ms: int) -> AsyncIterator[None]:
        while True:
            yield
            await asyncio.sleep(interval_ms / 1000)


def _source(address: str, http: httpx.AsyncClient) -> _LocalFile | _HttpFile | _RemoteFile:
    scheme = scheme_of(address)
    if not scheme:
        return _LocalFile(Path(address))
    try:
        files = remote_files(address, http)
        if scheme not in ("http", "https"):
            return _RemoteFile(address, files)
        httpx.URL(address)
    except (DeployError, httpx.InvalidURL) as error:
        raise ConfError("transfer.conf", "[default] donefile_address", str(error)) from error
    return _HttpFile(address, http)


def _too_large() -> OSError:
    # Of the kind that is tried again: the donefile may be replaced by a shorter one.
    return OSError(
        f"more than DONEFILE_BYTES_MAX = {DONEFILE_BYTES_MAX} bytes; start a new donefile"
    )


def _inode(directory: Path) -> int | None:
    try:
        return directory.stat().st_ino
    except OSError:
        return None
