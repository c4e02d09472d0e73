"""The versions of the dict that a server has loaded, and the steps from one to the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from cube_core._native import Table
from cube_core.errors import ControlError, CubeError
from cube_core.versions import Version
from cube_server.download import check_table
from cube_server.store import DataDirectory

log = logging.getLogger(__name__)

Publish = Callable[["Table | None", Sequence[Table]], Awaitable[None]]
"""Lets seeks be answered from a current table and from others that they may pin."""


class BackgroundState(IntEnum):
    """What `status` says of the background version."""

    IDLE = 0
    LOADING = 1
    LOADED = 2


@dataclass(frozen=True)
class LoadedTable:
    """A table in memory, with how long it took to get there."""

    version: Version
    table: Table
    load_s: float


class DictVersions:
    """State machine of the loaded versions.

    `served` holds the current version first, then those before it, newest first; requests that
    pin a version are answered from any of them, and from the background version. Every change is
    made under one lock, off the event loop as far as it takes time, and is published to whoever
    answers seeks.
    """

    def __init__(
        self,
        store: DataDirectory,
        publish: Publish,
        *,
        in_memory: bool,
        shared: bool,
        keep_versions: int,
    ) -> None:
        self.store = store
        self.last_error = ""
        self.wanted: Version | None = None
        self.served: list[LoadedTable] = []
        self.background: LoadedTable | None = None
        self.loading: Version | None = None
        self.on_change: Callable[[], object] = lambda: None
        self._publish = publish
        self._in_memory = in_memory
        self._shared = in_memory and shared
        self._keep_versions = keep_versions
        self._lock = asyncio.Lock()
        self._wanting = asyncio.Lock()

    @property
    def current(self) -> LoadedTable | None:
        return self.served[0] if self.served else None

    @property
    def problem(self) -> str:
        """Why it is not ready: no version is served, or not the one that `want` named; "" when it
        is."""
        current = self.current
        if current is None:
            return self.last_error or "no version is served"
        if self.wanted in (None, current.version):
            return ""
        return f"version {current.version} is served, {self.wanted} is wanted"

    @property
    def state(self) -> BackgroundState:
        if self.loading is not None:
            return BackgroundState.LOADING
        return BackgroundState.IDLE if self.background is None else BackgroundState.LOADED

    @property
    def in_use(self) -> set[Version]:
        """Versions that are loaded or being loaded."""
        versions = {each.version for each in self.served}
        if self.background is not None:
            versions.add(self.background.version)
        if self.loading is not None:
            versions.add(self.loading)
        return versions

    def loaded(self) -> Iterator[tuple[str, LoadedTable]]:
        """Every table in memory with its role: current, previous or background."""
        for index, each in enumerate(self.served):
            yield "previous" if index else "current", each
        if self.background is not None and self.background not in self.served:
            yield "background", self.background

    async def start(self) -> None:
        """Serves the version that the data directory names. One that cannot be loaded is told in
        the log and in `last_error`; the server stays empty and can be repaired by commands."""
        try:
            self.wanted = await asyncio.to_thread(self.store.wanted_version)
        except (CubeError, OSError) as error:
            log.error("starts without a wanted version: %s", error)
        try:
            version = await asyncio.to_thread(self.store.recorded_version)
            if version is not None:
                async with self._lock:
                    loaded = await self._load(version)
                    await self._serve([loaded])
        except (CubeError, OSError) as error:
            self.last_error = str(error)
            log.error("starts without a version: %s", error)

    async def load_background(self, version: Version) -> None:
        """Loads a version beside the current one; at once done when it is loaded already.

        Raises:
            ControlError: it is not on disk, or its table cannot be used.
        """
        async with self._lock:
            if self.current is not None and self.current.version == version:
                return
            if self.background is not None and self.background.version == version:
                return
            before = next((each for each in self.served if each.version == version), None)
            background = before or await self._load(version)
            await self._replace(self.served, background)

    async def unload_background(self) -> None:
        """Drops the background version, if there is one."""
        async with self._lock:
            await self._replace(self.served, None)

    async def switch(self, version: Version | None = None) -> None:
        """Makes the background version the current one; at once done when `version` is current.

        Raises:
            ControlError: nothing, or another version, is loaded in the background.
        """
        async with self._lock:
            if version is not None and self.current and self.current.version == version:
                return
            if self.background is None:
                raise ControlError("no version is loaded in the background: send bg_load_base")
            if version not in (None, self.background.version):
                raise ControlError(
                    f"version {self.background.version} is loaded in the background, not {version}"
                )
            await self._serve([self.background, *self.served])

    async def enable(self, version: Version, *, reload: bool = False) -> None:
        """Loads a version and makes it the current one. With `reload`, reads its file again even
        when it is loaded.

        Raises:
            ControlError: as `load_background`; what was served before still is.
        """
        async with self._lock:
            loaded = [each for each in (*self.served, self.background) if each is not None]
            known = next((each for each in loaded if each.version == version), None)
            del loaded
            if known is None or reload:
                known = await self._load(version)
            await self._serve([known, *self.served])

    async def rollback(self, version: Version | None = None) -> None:
        """Serves the version before the current one again, or `version`, out of memory.

        Raises:
            ControlError: it is not loaded.
        """
        async with self._lock:
            if version is not None and self.current and self.current.version == version:
                return
            for each in self.served[1:]:
                if version in (None, each.version):
                    await self._serve([each, *self.served])
                    if self.wanted is not None:
                        # Whoever goes back wants what it goes back to.
                        await self.want(each.version)
                    return
            on_disk = ", ".join(str(each) for each in self.store.versions()) or "none"
            wanted = f"version {version}" if version else "a version before the current one"
            raise ControlError(
                f"{wanted} is not loaded; `enable` loads one of those on disk: {on_disk}"
            )

    async def want(self, version: Version | None) -> None:
        """Takes note of the version that whoever deploys wants served, also for the next start;
        None: any. Until it is served, the server is not ready.

        Raises:
            ControlError: it cannot be written down; it holds until the server ends.
        """
        async with self._wanting:
            if version == self.wanted:
                return
            self.wanted = version
            self.on_change()
            try:
                await asyncio.to_thread(self.store.record_wanted, version)
            except OSError as error:
                raise ControlError(
                    f"version {version} is wanted, but cannot be recorded for the next start:"
                    f" {error}"
                ) from error

    async def verify(self, version: Version) -> Table:
        """Reads and checks the file of a version, without loading it.

        Raises:
            ControlError: as `load_background`.
        """
        return await asyncio.to_thread(self._open, version, in_memory=False)

    async def _serve(self, newest_first: list[LoadedTable]) -> None:
        """Makes the first the current one, keeps the first of each version, `keep_versions` in
        all, and records the current version for the next start."""
        by_version: dict[Version, LoadedTable] = {}
        for candidate in newest_first:
            by_version.setdefault(candidate.version, candidate)
        served = list(by_version.values())
        # What is dropped must have no other owner than `_replace`, which frees it in a thread.
        newest_first.clear()
        by_version.clear()
        del candidate, served[self._keep_versions :]
        background = self.background
        if background is not None and background.version == served[0].version:
            background = None
        await self._replace(served, background)
        self.last_error = ""
        current = served[0]
        log.info("serves version %s: %d keys", current.version, current.table.key_count)
        if self.wanted is not None and current.version.is_after(self.wanted):
            # Whoever switches on wants what it switches to.
            await self.want(current.version)
        await asyncio.to_thread(self._record, current.version, self.in_use)

    def _record(self, current: Version, in_use: set[Version]) -> None:
        try:
            self.store.record_version(current)
        except OSError as error:
            raise ControlError(
                f"version {current} is served, but cannot be recorded for the next start: {error}"
            ) from error
        try:
            self.store.prune(current, in_use, self._keep_versions)
        except OSError as error:
            log.warning("tables that are not needed any more stay on disk: %s", error)

    async def _replace(self, served: list[LoadedTable], background: LoadedTable | None) -> None:
        dropped = [*self.served, self.background]
        self.served, self.background = served, background
        others = [each.table for each in served[1:]]
        if background is not None and background not in served:
            others.append(background.table)
        await self._publish(served[0].table if served else None, others)
        self.on_change()
        # Giving back gigabytes takes a while.
        await asyncio.to_thread(dropped.clear)

    async def _load(self, version: Version) -> LoadedTable:
        self.loading = version
        started = time.monotonic()
        try:
            table = await asyncio.to_thread(
                self._open, version, in_memory=self._in_memory, shared=self._shared
            )
            self._check_like_current(table)
        except ControlError as error:
            self.last_error = str(error)
            raise
        finally:
            self.loading = None
        load_s = time.monotonic() - started
        log.info("loaded %s in %.3f s: %d keys", table.path, load_s, table.key_count)
        return LoadedTable(version, table, load_s)

    def _open(self, version: Version, *, in_memory: bool, shared: bool = False) -> Table:
        path = self.store.find_table(version)
        try:
            table = Table.open(str(path), in_memory=in_memory, shared=shared)
        except (CubeError, OSError) as error:
            raise ControlError(f"version {version} cannot be loaded: {error}") from error
        check_table(table, version, self.store)
        return table

    def _check_like_current(self, table: Table) -> None:
        if self.current is None:
            return
        current = self.current.table
        for field, found, wanted in (
            ("dict_name", table.dict_name, current.dict_name),
            # Another number of shards is a new cut of the keys, where any shard is as good.
            ("shard", (table.shard, table.shard_num), (current.shard, table.shard_num)),
        ):
            if found != wanted:
                raise ControlError(f"{table.path}: {field} is {found}, this server serves {wanted}")
