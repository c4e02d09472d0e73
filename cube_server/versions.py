"""The versions of the dict that a server has loaded, and the steps from one to the next."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum

from cube_core._native import Table
from cube_core.errors import ControlError, CubeError
from cube_core.versions import Version
from cube_server.background import in_background, let_requests_pass
from cube_server.folding import Fold, Folding
from cube_server.loaded import LoadedTable
from cube_server.opening import TableOpener
from cube_server.replaced import KeepLimits, ReplacedVersions
from cube_server.store import DataDirectory
from cube_server.wanted import Wanted

log = logging.getLogger(__name__)

Publish = Callable[["LoadedTable | None", Sequence[LoadedTable]], Awaitable[None]]
"""Lets seeks be answered from a current version and from others that they may pin."""


class BackgroundState(IntEnum):
    """What `status` says of the background version."""

    IDLE = 0
    LOADING = 1
    LOADED = 2


class DictVersions:
    """State machine of the loaded versions.

    `served` holds the current version first, then those before it, newest first: as many as are to
    stay, then those that stay for a while. Requests that pin a version are answered from any of
    them, and from the background version. Every change is made under one lock, off the event loop
    as far as it takes time, and is published to whoever answers seeks.
    """

    def __init__(
        self,
        store: DataDirectory,
        publish: Publish,
        opener: TableOpener,
        *,
        keep: KeepLimits,
        fold_percent: float,
        want_timeout_s: float,
    ) -> None:
        self.store = store
        self.folding = Folding(opener, fold_percent)
        self.patch_count = 0
        self.last_error = ""
        self.wanted = Wanted(store, want_timeout_s, lambda: self.on_change())
        self.served: list[LoadedTable] = []
        self.background: LoadedTable | None = None
        self.loading: Version | None = None
        self.on_change: Callable[[], object] = lambda: None
        self._publish = publish
        self._opener = opener
        self.fold_task: asyncio.Task[None] | None = None
        self._keep = keep
        self._replaced = ReplacedVersions(keep)
        self._is_recorded = True
        self._drop_timer: asyncio.TimerHandle | None = None
        self._drop_task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

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
        return self.wanted.problem(current.version)

    @property
    def state(self) -> BackgroundState:
        if self.loading is not None:
            return BackgroundState.LOADING
        return BackgroundState.IDLE if self.background is None else BackgroundState.LOADED

    @property
    def in_use(self) -> set[Version]:
        """Versions that are loaded, being loaded or being folded."""
        versions = {each.version for each in self._loaded}
        if self.loading is not None:
            versions.add(self.loading)
        if self.folding.under_way is not None:
            versions.add(self.folding.under_way.version)
        return versions

    def loaded(self) -> Iterator[tuple[str, LoadedTable]]:
        """Every table in memory with its role: current, previous or background; but for those that
        are kept by time."""
        for index, each in enumerate(self._replaced.counted(self.served)):
            yield "previous" if index else "current", each
        if self.background is not None and self.background not in self.served:
            yield "background", self.background

    @property
    def replaced(self) -> list[Version]:
        """Versions that others took the place of, kept by time."""
        return [each.version for each in self._replaced.timed(self.served)]

    @property
    def replaced_bytes(self) -> int:
        """Memory that those take, without what the others need as well."""
        return self._replaced.extra_bytes(self.served)

    async def start(self) -> None:
        """Serves the version that the data directory names. One that cannot be loaded is told in
        the log and in `last_error`; the server stays empty and can be repaired by commands."""
        await self.wanted.start()
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
        await self._load_background(version, lambda: self._load(version))

    async def load_patch_background(
        self, version: Version, previous: Version | None = None
    ) -> None:
        """Lays a patch over `previous`, beside the current version; at once done when the version
        is loaded already.

        Args:
            previous: None for the newest that is loaded of its base, else the base.

        Raises:
            ControlError: the patch, or what it is to be laid over, is not there or of no use.
        """
        await self._load_background(version, lambda: self._lay_over(version, previous))

    async def _load_background(
        self, version: Version, load: Callable[[], Awaitable[LoadedTable]]
    ) -> None:
        async with self._lock:
            if self.current is not None and self.current.version == version:
                return
            if self.background is not None and self.background.version == version:
                return
            before = next((each for each in self.served if each.version == version), None)
            background = before or await load()
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
                await self._record_if_missed()
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
            known = next((each for each in self._loaded if each.version == version), None)
            if known is None or reload:
                known = await self._load(version, anew=reload)
            await self._serve([known, *self.served])

    async def enable_patch(self, version: Version, previous: Version | None = None) -> None:
        """Lays a patch over `previous`, also when it is loaded already, and makes it the current
        version.

        Raises:
            ControlError: as `load_patch_background`; what was served before still is.
        """
        async with self._lock:
            loaded = await self._lay_over(version, previous)
            await self._serve([loaded, *self.served])

    async def rollback(self, version: Version | None = None) -> None:
        """Serves the version before the current one again, or `version`, out of memory.

        Raises:
            ControlError: it is not loaded.
        """
        async with self._lock:
            if version is not None and self.current and self.current.version == version:
                await self._record_if_missed()
                await self._want_instead(version)
                return
            for each in self.served[1:]:
                if version in (None, each.version):
                    await self._serve([each, *self.served])
                    await self._want_instead(each.version)
                    return
            on_disk = ", ".join(str(each) for each in self.store.versions()) or "none"
            wanted = f"version {version}" if version else "a version before the current one"
            raise ControlError(
                f"{wanted} is not loaded; `enable` loads one of those on disk: {on_disk}"
            )

    async def _want_instead(self, version: Version) -> None:
        """Whoever goes back wants what it goes back to, where any version was wanted."""
        if self.wanted.version is not None:
            await self.wanted.set(version)

    async def verify(self, version: Version) -> Table:
        """Reads and checks the file of a version, without loading it.

        Raises:
            ControlError: as `load_background`.
        """
        return await asyncio.to_thread(self._opener.open_shipped, version)

    async def stop(self, timeout_s: float) -> None:
        """Gives a fold under way that long to end; what it has written by then is given up."""
        if self._drop_timer is not None:
            self._drop_timer.cancel()
        if self._drop_task is not None:
            await self._drop_task
        if self.fold_task is not None:
            await asyncio.wait([self.fold_task], timeout=timeout_s)
            self.fold_task.cancel()
        await asyncio.to_thread(self.store.remove_temporaries)

    @property
    def _loaded(self) -> list[LoadedTable]:
        """The background version, if there is one, and those that are served, newest first."""
        return [*self._background_alone, *self.served]

    @property
    def _background_alone(self) -> list[LoadedTable]:
        return [self.background] if self.background is not None else []

    async def _serve(self, newest_first: list[LoadedTable]) -> None:
        """Makes the first the current one, keeps the first of each version as far as they are to
        stay, and records the current version for the next start."""
        by_version: dict[Version, LoadedTable] = {}
        for candidate in newest_first:
            by_version.setdefault(candidate.version, candidate)
        self._replaced.note(self.current, newest_first[0])
        served = self._replaced.kept(list(by_version.values()))
        # What is dropped must have no other owner than `_replace`, which frees it in a thread.
        newest_first.clear()
        by_version.clear()
        del candidate
        background = self.background
        if background is not None and background.version == served[0].version:
            background = None
        was_served = any(each.version == served[0].version for each in self.served)
        await let_requests_pass()
        self._is_recorded = False
        await self._replace(served, background)
        self.last_error = ""
        current = served[0]
        await let_requests_pass()
        log.info("serves version %s: %d keys", current.version, current.table.key_count)
        try:
            wanted = self.wanted.version
            if wanted is not None and current.version.is_after(wanted):
                # Whoever switches on wants what it switches to.
                await self.wanted.set(current.version)
            await let_requests_pass()
            # Nothing on disk is unneeded for going to and fro between versions in memory.
            unneeded_except = None if was_served else self.in_use
            await asyncio.to_thread(self._record, current.version, unneeded_except)
        finally:
            self._drop_when_due()
            self._fold_if_due()
        self._is_recorded = True

    async def _record_if_missed(self) -> None:
        """Records the current version when that failed as it was switched to: who sends the
        command again learns whether the next start will serve it."""
        if self._is_recorded or self.current is None:
            return
        if self.wanted.version is not None:
            await self.wanted.set(self.wanted.version)
        await asyncio.to_thread(self._record, self.current.version, self.in_use)
        self._is_recorded = True

    def _record(self, current: Version, unneeded_except: set[Version] | None) -> None:
        try:
            self.store.record_version(current)
        except OSError as error:
            raise ControlError(
                f"version {current} is served, but cannot be recorded for the next start: {error}"
            ) from error
        if unneeded_except is not None:
            self._prune(current, unneeded_except)

    def _prune(self, current: Version, in_use: set[Version]) -> None:
        try:
            self.store.prune(current, in_use, self._keep.versions)
        except OSError as error:
            log.warning("tables that are not needed any more stay on disk: %s", error)

    async def _replace(self, served: list[LoadedTable], background: LoadedTable | None) -> None:
        kept = [*served, background]
        dropped = [each for each in (*self.served, self.background) if each not in kept]
        self.served, self.background = served, background
        others = served[1:]
        if background is not None and background not in served:
            others.append(background)
        await self._publish(served[0] if served else None, others)
        self.on_change()
        if dropped:
            # Giving back gigabytes takes a while.
            await asyncio.to_thread(dropped.clear)

    def _drop_when_due(self) -> None:
        """Drops what is kept by time when nobody else does: while versions come, each switch
        drops those whose time is over."""
        if self._drop_timer is not None:
            self._drop_timer.cancel()
            self._drop_timer = None
        if left_s := self._replaced.left_s(self.served):
            loop = asyncio.get_running_loop()
            self._drop_timer = loop.call_later(left_s, self._begin_drop)

    def _begin_drop(self) -> None:
        self._drop_task = asyncio.create_task(self._drop_replaced())

    async def _drop_replaced(self) -> None:
        async with self._lock:
            kept = self._replaced.kept(self.served)
            if len(kept) < len(self.served):
                await self._replace(kept, self.background)
                await asyncio.to_thread(self._prune, kept[0].version, self.in_use)
            self._drop_when_due()

    async def _load(self, version: Version, *, anew: bool = False) -> LoadedTable:
        with self._loading(version):
            known = [] if anew else self._loaded
            loaded = await asyncio.to_thread(self._opener.open, version, known)
            self._check_like_current(loaded.table)
        return loaded

    async def _lay_over(self, version: Version, previous: Version | None) -> LoadedTable:
        with self._loading(version):
            shipped = await asyncio.to_thread(self._opener.open_patch, version)
            under = await self._under(version, previous)
            deltas = [shipped] if under.delta is None else [under.delta, shipped]
            loaded = await in_background(
                lambda: self._opener.lay_over(version, under.whole, deltas)
            )
            self._check_like_current(loaded.table)
        self.folding.note_patch(version, under.version, shipped)
        self.patch_count += 1
        return loaded

    async def _under(self, version: Version, previous: Version | None) -> LoadedTable:
        if previous is not None and previous.base != version.base:
            raise ControlError(f"{version} is no patch over {previous}, which is of another base")
        for each in self._loaded:
            if previous is None:
                is_before = each.version != version and not each.version.is_after(version)
                if each.version.base == version.base and is_before:
                    return each
            elif each.version == previous:
                return each
        wanted = previous or Version(version.base, version.base)
        try:
            return await asyncio.to_thread(self._opener.open, wanted, self._loaded)
        except ControlError as error:
            raise ControlError(
                f"patch {version} lies over {wanted}, which is not loaded and cannot be: {error}"
            ) from error

    @contextmanager
    def _loading(self, version: Version) -> Iterator[None]:
        self.loading = version
        started_s = time.monotonic()
        try:
            yield
        except ControlError as error:
            self.last_error = str(error)
            raise
        finally:
            self.loading = None
        log.info("loaded %s in %.3f s", version, time.monotonic() - started_s)

    def _fold_if_due(self) -> None:
        fold = self.folding.begin_if_due(self.served[0])
        if fold is not None:
            self.fold_task = asyncio.create_task(self._fold(fold))

    async def _fold(self, fold: Fold) -> None:
        """Puts the whole table in the place of what was folded, and under what was laid over it
        meanwhile; nobody who reads notices."""
        error: Exception | None = None
        try:
            written = await fold.write()
            async with self._lock:
                placed = await fold.place(written)
            whole = await fold.open(placed)
            async with self._lock:
                # Those that are kept by time stay over the table that they have.
                made = await fold.laid_anew(
                    whole, [*self._replaced.counted(self.served), *self._background_alone]
                )
                background = self.background
                if background is not None:
                    background = made.get(background.version, background)
                served = self._replaced.kept([made.get(each.version, each) for each in self.served])
                await self._replace(served, background)
        except Exception as caught:
            # Whatever it is, such as no memory: a fold that never ended would be the last one.
            # Its traceback would hold on to the tables.
            error = caught.with_traceback(None)
        await asyncio.to_thread(fold.forget)
        self.folding.end(fold, error)
        if error is None:
            self._fold_if_due()

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
