"""What one server is and does besides seeks: versions, commands, status, metrics.

There is one of it a server, whatever number of processes answers the seeks.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from cube_core._native import cpu_level
from cube_core.access import Asker, Right, audit
from cube_core.directory_lock import DirectoryLock
from cube_core.errors import ControlError
from cube_core.log import fields as log_fields
from cube_server.background import let_requests_pass
from cube_server.control import READING_COMMANDS, Command, Control, parse_command
from cube_server.counters import Counts
from cube_server.dict_directories import check_new_dict, found_dicts, holds_dict
from cube_server.download import Downloads
from cube_server.history import SAMPLE_INTERVAL_S, History
from cube_server.loaded import LoadedTable
from cube_server.opening import TableOpener
from cube_server.replaced import KeepLimits
from cube_server.settings import ServerSettings
from cube_server.store import DataDirectory
from cube_server.variables import variables_text
from cube_server.versions import DictVersions

if TYPE_CHECKING:
    from cube_server.metrics import ServerMetrics

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 5.0
"""How long a server that ends, or the workers of one that was killed, may keep the directory."""

_AUDITED = ("cmd", "dict_name", "version", "version_path", "previous")

PublishDict = Callable[["str", "LoadedTable | None", Sequence[LoadedTable]], Awaitable[None]]
"""Lets seeks of a dict (see `ServedDict.name`) be answered from these versions."""


class ServedDict:
    """One dict of the server: its directory, its versions and their commands.

    Args:
        optional: the server is ready without it, until a version of it is served.

    Attributes:
        name: "" when the server was given none: it is that of the first table then.
    """

    def __init__(
        self, settings: ServerSettings, name: str, publish: PublishDict, *, optional: bool = False
    ) -> None:
        self.name = name
        self._optional = optional
        self._claimed_by = ""
        in_root = not name or len(settings.dict_names) == 1
        data_dir = settings.data_dir if in_root else settings.data_dir / name
        self.store = DataDirectory(data_dir, name, settings.shard)
        self.versions = DictVersions(
            self.store,
            functools.partial(publish, name),
            TableOpener(self.store, in_memory=settings.in_memory, shared=settings.workers > 1),
            keep=KeepLimits(settings.keep_versions, settings.keep_replaced_s),
            fold_percent=settings.fold_percent,
            want_timeout_s=settings.want_timeout_s,
        )
        self.downloads = Downloads(self.store, settings.tls, settings.download_bytes_max)
        self.control = Control(self.versions, self.downloads)

    @property
    def shown_name(self) -> str:
        """Its name, as far as it is known."""
        current = self.versions.current
        return self.name or (current.table.dict_name if current else "")

    @property
    def problem(self) -> str:
        """Why the server is not ready for the lack of it; "" when it does not lack it."""
        if self._optional and self.versions.current is None:
            return ""
        return self.versions.problem

    async def takes(self, name: str) -> bool:
        """Whether it is the dict of that name, or has none yet."""
        if self.shown_name:
            return self.shown_name == name
        names = await asyncio.to_thread(self.store.dict_names)
        if names:
            return name in names
        if self.downloads.versions and self._claimed_by != name:
            return False
        self._claimed_by = name
        return True

    async def status(self) -> dict[str, Any]:
        """State, tables in memory and versions on disk, for JSON."""
        on_disk = await asyncio.to_thread(self.store.versions)
        return {
            **self.control.state(),
            "last_error": self.versions.last_error,
            "versions": _tables(self.versions),
            "replaced": {
                "versions": [str(each) for each in self.versions.replaced],
                "memory_bytes": self.versions.replaced_bytes,
            },
            "patches": _patches(self.versions),
            "versions_on_disk": [str(each) for each in on_disk],
        }


class ControlPlane:
    """The one place where versions change.

    Args:
        publish: lets every serving process answer from other tables; returns when all do.
        counts: what all serving processes have counted.

    Attributes:
        dicts: what is served; the first answers requests that name no dict.
    """

    def __init__(
        self,
        settings: ServerSettings,
        publish: PublishDict,
        counts: Callable[[], Awaitable[Counts]],
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._started_s = time.monotonic()
        self._metrics: ServerMetrics | None = None
        self._publish = publish
        self._on_change: Callable[[bool], object] = lambda _: None
        self._arriving: dict[str, ServedDict] = {}
        self._taking_in = asyncio.Lock()
        self._history = History()
        self._sampling: asyncio.Task[None] | None = None
        self._lock: DirectoryLock | None = None
        if settings.dict_names:
            self.dicts = [ServedDict(settings, name, publish) for name in settings.dict_names]
        else:
            self.dicts = [self._found(name) for name in found_dicts(settings.data_dir)]

    async def open(self) -> None:
        """Makes the data directories ready, and takes them for this server alone.

        Raises:
            OSError: one cannot be created or read.
            ControlError: another server has them.
        """
        self._lock = await asyncio.to_thread(self._take_directory)
        for each in self.dicts:
            await asyncio.to_thread(each.store.open)

    def _take_directory(self) -> DirectoryLock:
        directory = self._settings.data_dir
        directory.mkdir(parents=True, exist_ok=True)
        return DirectoryLock(
            directory, "cube-server", "--data_dir", ControlError, timeout_s=LOCK_TIMEOUT_S
        )

    async def start(self) -> None:
        """Serves the versions that the data directories name."""
        for each in self.dicts:
            with log_fields(dict=each.name):
                await each.versions.start()
        self._sampling = asyncio.create_task(self._keep_history())

    def on_change(self, callback: Callable[[bool], object]) -> None:
        """Calls back after every change of versions, with whether all dicts are served."""
        self._on_change = callback
        for each in self.dicts:
            self._watch(each)

    def _watch(self, dict_: ServedDict) -> None:
        dict_.versions.on_change = lambda: self._on_change(
            not any(each.problem for each in self.dicts)
        )

    def _found(self, name: str) -> ServedDict:
        """A dict that nobody named; a server without any waits for its first version."""
        optional = bool(name)
        return ServedDict(self._settings, name, self._publish, optional=optional)

    async def stop(self) -> None:
        """Lets the downloads under way fail, and ends folds."""
        if self._sampling is not None:
            self._sampling.cancel()
        for each in (*self.dicts, *self._arriving.values()):
            each.downloads.stop()
        timeout_s = self._settings.drain_timeout_s
        await asyncio.gather(*(each.versions.stop(timeout_s) for each in self.dicts))

    async def command(self, body: bytes, asker: Asker) -> bytes:
        """Runs a control command, JSON to JSON.

        Raises:
            WireError: no JSON object, or one without `cmd`.
            AccessError: the asker may not do this.
            ControlError: the command is unknown or was refused; says why.
        """
        command = parse_command(body)
        right = Right.READ if command["cmd"] in READING_COMMANDS else Right.OPERATE
        what = " ".join(str(command[each])[:80] for each in _AUDITED if each in command)
        await let_requests_pass()
        self._settings.access.require(asker, right, what)
        version = str(command.get("version") or command.get("version_path") or "").strip("/")[:80]
        with log_fields(dict=str(command.get("dict_name") or "")[:80], version=version):
            try:
                reply = await self._run(command)
            except Exception as error:
                audit(asker, what, f"failed: {error}")
                raise
            if right is Right.OPERATE:
                audit(asker, what, "done")
                await let_requests_pass()
        return json.dumps(reply, separators=(",", ":")).encode()

    async def ready(self) -> str:
        """Why not every dict is served, in the wanted version; "" when all are."""
        for each in self.dicts:
            if problem := each.problem:
                return f"{each.name}: {problem}" if each.name else problem
        return ""

    async def status(self) -> dict[str, Any]:
        """Everything a person wants to know, for JSON; the first dict's state at the top too."""
        by_name = {each.shown_name: await each.status() for each in self.dicts}
        return {
            **by_name[self.dicts[0].shown_name],
            "ready": not await self.ready(),
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "dicts": by_name,
            "workers": self._settings.workers,
            "cpu": cpu_level(),
            "counters": await self._counts(),
            "limits": self._settings.limits_by_name(),
        }

    async def metrics(self) -> bytes:
        """Everything that is counted, in Prometheus' text form."""
        counts = await self._counts()
        return await asyncio.to_thread(self._metrics_text, counts)

    async def variables(self, names: str) -> str:
        """What is counted, in brpc's `name : value` form.

        Args:
            names: those wanted, with `*` and `?`, between commas; "" for all.
        """
        uptime_s = time.monotonic() - self._started_s
        current = [each.versions.current for each in self.dicts]
        return variables_text(await self._counts(), self._history, current, uptime_s, names)

    async def _keep_history(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_INTERVAL_S)
            self._history.add(await self._counts())

    def _metrics_text(self, counts: Counts) -> bytes:
        # prometheus_client takes a while to import, which a server that nobody scrapes need not.
        from cube_server.metrics import ServerMetrics

        if self._metrics is None:
            self._metrics = ServerMetrics(self.dicts, self._settings.data_dir)
        return self._metrics.text(counts)

    async def _run(self, command: Command) -> dict[str, Any]:
        known = await self._dict_of(command)
        if known is not None:
            return await known.control.run(command)
        name = str(command["dict_name"])
        async with self._taking_in:
            arriving = self._served(name) or self._arriving.get(name) or await self._new(name)
        try:
            reply = await arriving.control.run(command)
        except BaseException:
            if not arriving.downloads.versions:
                self._arriving.pop(name, None)
                await asyncio.to_thread(arriving.store.close_empty)
            raise
        async with self._taking_in:
            await self._take_in(arriving)
        return reply

    def _served(self, name: str) -> ServedDict | None:
        return next((each for each in self.dicts if each.shown_name == name), None)

    async def _new(self, name: str) -> ServedDict:
        """A dict whose first table is about to come."""
        await asyncio.to_thread(check_new_dict, self._settings.data_dir, name)
        new = self._found(name)
        await asyncio.to_thread(new.store.open)
        self._arriving[name] = new
        return new

    async def _take_in(self, dict_: ServedDict) -> None:
        """A dict whose first table has come is served from now on."""
        if self._served(dict_.name) is None:
            await self._publish(dict_.name, None, [])
            self._watch(dict_)
            self.dicts.append(dict_)
            log.info("dict %s is new and will be served", dict_.name)
        self._arriving.pop(dict_.name, None)

    async def _take_in_copied(self, name: str) -> None:
        """A dict whose directory was put there since the start is served from its first command
        on."""
        if self._settings.dict_names or name in self._arriving:
            return
        async with self._taking_in:
            if self._served(name) is not None or name in self._arriving:
                return
            if await asyncio.to_thread(holds_dict, self._settings.data_dir, name):
                copied = self._found(name)
                await asyncio.to_thread(copied.store.open)
                await self._take_in(copied)

    async def _dict_of(self, command: Command) -> ServedDict | None:
        """The dict that a command is for; None for the download of a new one."""
        name = command.get("dict_name")
        if name in (None, ""):
            return self.dicts[0]
        if command["cmd"] not in READING_COMMANDS:
            await self._take_in_copied(str(name))
        for each in self.dicts:
            if await each.takes(name):
                return each
        if command["cmd"] == "download" and not self._settings.dict_names:
            return None
        served = ", ".join(each.shown_name for each in self.dicts)
        raise ControlError(f"{command['cmd']}: dict {name!r} is not served; served: {served}")


def _tables(versions: DictVersions) -> list[dict[str, Any]]:
    return [
        {
            "version": str(each.version),
            "role": role,
            "dict_name": each.table.dict_name,
            "shard": each.table.shard,
            "shard_num": each.table.shard_num,
            "key_count": each.table.key_count,
            "value_kind": each.table.value_kind,
            "value_bytes": each.table.value_bytes,
            "value_bytes_max": each.table.value_bytes_max,
            "file_bytes": each.table.file_bytes,
            "memory_bytes": each.table.memory_bytes,
            "load_seconds": round(each.load_s, 6),
            "whole_version": each.whole.version,
            "delta_rows": each.delta_rows,
            "deletion_count": each.deletion_count,
        }
        for role, each in versions.loaded()
    ]


def _patches(versions: DictVersions) -> dict[str, Any]:
    folding = versions.folding
    return {
        "laid_over": versions.patch_count,
        "folds": folding.counts.done,
        "folds_failed": folding.counts.failed,
        "folding": str(folding.under_way.version) if folding.under_way else "",
        "fold_seconds": round(folding.counts.last_s, 6),
        "fold_error": folding.counts.last_error,
    }
