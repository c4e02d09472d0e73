"""The workers of a server: started, told what to answer from, counted, started again."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from cube_core._native import Table
from cube_core.errors import CubeError
from cube_core.worker_channel import (
    DESCRIPTORS_MAX,
    Channel,
    ChannelClosedError,
    no_worker,
    start_worker,
)
from cube_core.worker_restart import pause_after_s, start_again
from cube_server.counters import Counts, added
from cube_server.loaded import LoadedTable
from cube_server.settings import ServerSettings

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 30.0
_TABLES_TIMEOUT_S = 10.0
_COUNTS_TIMEOUT_S = 1.0
_END_TIMEOUT_S = 3.0
# What is true of a moment and not counted: a worker that has ended adds nothing to it.
_MOMENTARY = frozenset({"connections"})

Ask = Callable[[str, dict[str, Any]], Awaitable[Any]]


class _Worker:
    """One worker process and the channel to it."""

    def __init__(self, answer: Ask) -> None:
        self.process, ours = start_worker("cube_server.worker")
        self.channel = Channel(ours, lambda what, body, _: answer(what, body))
        self.numbers: set[int] = set()
        self.counts: Counts = {}

    async def end(self, timeout_s: float) -> int:
        """Waits for the process, and kills it when that takes too long; returns its code."""
        self.channel.close()
        try:
            return await asyncio.to_thread(self.process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)


class _NumberedTable(NamedTuple):
    """A table, by the number that workers know it by."""

    number: int
    table: Table


_Parts = list[_NumberedTable]
"""The parts of a version: a whole table, and what is laid over it."""


@dataclass(frozen=True)
class _DictTables:
    """What one dict is answered from."""

    current: _Parts | None
    others: list[_Parts]

    @property
    def tables(self) -> list[_NumberedTable]:
        """Every part once."""
        versions = [*([self.current] if self.current else []), *self.others]
        return list({each.number: each for parts in versions for each in parts}.values())


def _numbers(parts: _Parts) -> list[int]:
    return [each.number for each in parts]


class Fleet:
    """Keeps `settings.workers` workers serving the same tables.

    Args:
        dict_names: those that are served from the begin; more may be published.
        answer: called with what a worker asks.
    """

    def __init__(
        self, settings: ServerSettings, dict_names: Sequence[str], port: int, answer: Ask
    ) -> None:
        self._settings = settings
        self._port = port
        self._answer = answer
        self._workers: list[_Worker] = []
        self._keepers: list[asyncio.Task[None]] = []
        self._dicts: dict[str, _DictTables] = {name: _DictTables(None, []) for name in dict_names}
        self._next_number = 0
        self._counts_of_ended: Counts = {}
        self._stopping = False
        self._publishing = asyncio.Lock()

    async def start(self) -> None:
        """Starts every worker.

        Raises:
            ConfError: one cannot open the port.
        """
        starts = [self._start_worker() for _ in range(self._settings.workers)]
        workers = await asyncio.gather(*starts)
        loop = asyncio.get_running_loop()
        self._keepers = [loop.create_task(self._keep(each)) for each in workers]

    async def publish(
        self, dict_name: str, current: LoadedTable | None, others: Sequence[LoadedTable]
    ) -> None:
        """Lets every worker answer the dict from these versions; returns when all do."""
        async with self._publishing:
            known = self._dicts.get(dict_name, _DictTables(None, [])).tables
            self._dicts[dict_name] = _DictTables(
                self._numbered(known, current) if current is not None else None,
                [self._numbered(known, each) for each in others],
            )
            await asyncio.gather(*(self._tell(each) for each in self._workers))

    def _numbered(self, known: list[_NumberedTable], loaded: LoadedTable) -> _Parts:
        """The parts with the numbers that workers know them by, or with new ones, which `known`
        then holds too."""
        parts = []
        for table in (loaded.whole, *([loaded.delta] if loaded.delta is not None else [])):
            numbered = next((each for each in known if each.table is table), None)
            if numbered is None:
                self._next_number += 1
                numbered = _NumberedTable(self._next_number, table)
                known.append(numbered)
            parts.append(numbered)
        return parts

    async def counts(self) -> dict[str, int]:
        """What all workers have counted, those that have ended too."""
        await asyncio.gather(*(self._count(each) for each in self._workers))
        return added([self._counts_of_ended, *(each.counts for each in self._workers)])

    async def drain(self, timeout_s: float) -> None:
        """Lets every worker answer what is under way, and ends them."""
        self._stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*(self._drain(each, timeout_s) for each in self._workers))

    async def _drain(self, worker: _Worker, timeout_s: float) -> None:
        try:
            drained = worker.channel.ask("drain", {"timeout_s": timeout_s})
            await asyncio.wait_for(drained, timeout_s + _END_TIMEOUT_S)
        except (CubeError, asyncio.TimeoutError) as error:
            log.warning("worker %d does not drain: %s", worker.process.pid, error)
        await worker.end(_END_TIMEOUT_S)

    async def _start_worker(self) -> _Worker:
        settings = self._settings
        worker = _Worker(self._answer)
        body = {
            "host": settings.host,
            "port": self._port,
            "keys_per_request_max": settings.keys_per_request_max,
            "limits": asdict(settings.limits),
            "tls": asdict(settings.tls),
            "access": asdict(settings.access),
        }
        try:
            await asyncio.wait_for(worker.channel.ask("start", body), _START_TIMEOUT_S)
            async with self._publishing:
                await self._tell(worker)
                self._workers.append(worker)
        except BaseException as error:
            worker.process.kill()
            await worker.end(_END_TIMEOUT_S)
            if isinstance(error, (CubeError, asyncio.TimeoutError)):
                raise no_worker(error) from error
            raise
        return worker

    async def _tell(self, worker: _Worker) -> None:
        """Sends the tables; a worker that has ended meanwhile is told when it starts again."""
        tables = [each for tables in self._dicts.values() for each in tables.tables]
        new = [each for each in tables if each.number not in worker.numbers]
        body = {
            "numbers": [each.number for each in tables],
            "dicts": [
                {
                    "name": name,
                    "current": _numbers(each.current) if each.current else None,
                    "others": [_numbers(other) for other in each.others],
                }
                for name, each in self._dicts.items()
            ],
        }
        try:
            for start in range(0, len(new), DESCRIPTORS_MAX):
                await self._attach(worker, new[start : start + DESCRIPTORS_MAX])
            await asyncio.wait_for(worker.channel.ask("tables", body), _TABLES_TIMEOUT_S)
        except ChannelClosedError:
            return
        except (CubeError, asyncio.TimeoutError) as error:
            # It must not answer from other tables than the rest: a fresh one takes its place.
            log.error("worker %d takes no tables and is ended: %r", worker.process.pid, error)
            worker.process.kill()
            return
        worker.numbers = {each.number for each in tables}

    async def _attach(self, worker: _Worker, new: Sequence[_NumberedTable]) -> None:
        body = {"tables": [{"number": each.number, "path": each.table.path} for each in new]}
        descriptors = [each.table.descriptor for each in new]
        asked = worker.channel.ask("attach", body, descriptors)
        await asyncio.wait_for(asked, _TABLES_TIMEOUT_S)

    async def _count(self, worker: _Worker) -> None:
        try:
            asked = worker.channel.ask("counts")
            worker.counts = await asyncio.wait_for(asked, _COUNTS_TIMEOUT_S)
        except (CubeError, asyncio.TimeoutError):
            return  # what it counted last stands for it

    async def _keep(self, worker: _Worker) -> None:
        """Starts a worker again whenever it ends."""
        pause_s = 0.0
        while True:
            started_s = time.monotonic()
            await worker.channel.closed.wait()
            self._workers.remove(worker)
            lasting = {name: n for name, n in worker.counts.items() if name not in _MOMENTARY}
            self._counts_of_ended = added([self._counts_of_ended, lasting, {"worker_restarts": 1}])
            code = await worker.end(_END_TIMEOUT_S)
            log.error("worker %d has ended with %d; another starts", worker.process.pid, code)
            pause_s = pause_after_s(time.monotonic() - started_s, pause_s)
            worker = await start_again(self._start_worker, pause_s)
