"""One of several processes that answer seeks on the port of a server (`cube-server --workers=N`).

Run by the supervisor: `python -m cube_server.worker <descriptor of the channel>`. It ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvloop

from cube_core import log as logs
from cube_core._native import Seeker, Table
from cube_core.access import Access, Asker
from cube_core.tls import ServerTls, TlsFiles
from cube_core.wire.limits import WireLimits
from cube_core.wire.server import RpcServer
from cube_core.worker_channel import Channel
from cube_server.control import control_service
from cube_server.counters import added, seek_counts, wire_counts
from cube_server.loop_seeks import LoopSeeks
from cube_server.seek_failures import SeekFailures
from cube_server.server import allow_files, dict_service, freeze_when_started

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

_OTHER_FILES = 256

_Numbers = tuple[int, ...]
"""Of the parts of a version."""


class Worker:
    """Answers what the supervisor asks, and asks it what only one process can answer."""

    def __init__(self, end: socket.socket) -> None:
        self.channel = Channel(end, self._answer)
        self.done = asyncio.Event()
        self._parts: dict[int, Table] = {}
        self._versions: dict[_Numbers, Table] = {}

    async def _answer(self, what: str, body: dict[str, Any], descriptors: list[int]) -> Any:
        if what == "start":
            return await self._start(**body)
        if what == "tables":
            return await self._set_tables(body["numbers"], body["dicts"])
        if what == "attach":
            return self._attach(body["tables"], descriptors)
        if what == "counts":
            return added([seek_counts(self._seeker), wire_counts(self._server)])
        if what == "drain":
            await self._server.drain(body["timeout_s"])
            self._failures.stop()
            self.done.set()
            return None
        raise ValueError(f"nobody asks a worker for {what!r}")

    async def _start(
        self,
        host: str,
        port: int,
        keys_per_request_max: int,
        limits: dict[str, int],
        tls: dict[str, str],
        access: dict[str, str],
    ) -> None:
        self._access = Access(**access)
        self._limits = WireLimits(**limits)
        allow_files(self._limits.connections_max + _OTHER_FILES)
        self._seeker = Seeker(keys_per_request_max, self._limits.frame_bytes_max)
        self._loop_seeks = LoopSeeks(self._seeker)
        self._failures = SeekFailures(self._seeker)
        self._dict_service = dict_service(self._seeker)
        self._server = RpcServer(
            [self._dict_service, control_service(self.command)],
            self._make_app,
            host=host,
            port=port,
            limits=self._limits,
            fast_path=self._loop_seeks,
            tls=ServerTls(TlsFiles(**tls)) if tls["cert_file"] else None,
            reuse_port=True,
        )
        await self._server.start()
        self._settling = asyncio.create_task(freeze_when_started(self._server))
        self._failures.start()

    def _attach(self, tables: list[dict[str, Any]], descriptors: list[int]) -> None:
        """Takes tables, whose descriptors come along in the same order, for `_set_tables`."""
        for each, descriptor in zip(tables, descriptors, strict=True):
            self._parts[each["number"]] = Table.attach(each["path"], descriptor)

    async def _set_tables(self, numbers: list[int], dicts: list[dict[str, Any]]) -> None:
        """Answers each of `dicts` from its own of the tables of these numbers, and lets go of all
        others."""
        parts = {number: self._parts[number] for number in numbers}
        versions: dict[_Numbers, Table] = {}
        for each in dicts:
            for version in map(tuple, (each["current"] or [], *each["others"])):
                if version:
                    versions[version] = await self._version_of(version, parts)
        for each in dicts:
            current = versions[tuple(each["current"])] if each["current"] else None
            others = [versions[tuple(other)] for other in each["others"]]
            self._seeker.set_tables(current, others, dict_name=each["name"])
        self._loop_seeks.fit(max((each.value_bytes_max for each in parts.values()), default=1))
        dropped: list[Any] = [self._parts, self._versions]
        drops = bool(self._parts.keys() - parts.keys() or self._versions.keys() - versions.keys())
        self._parts, self._versions = parts, versions
        if drops:
            # Giving back the mappings of gigabytes takes a while.
            await asyncio.to_thread(dropped.clear)

    async def _version_of(self, numbers: _Numbers, parts: dict[int, Table]) -> Table:
        """The whole table of the first number, with that of the second, if any, laid over it."""
        known = self._versions.get(numbers)
        if known is not None:
            return known
        whole, *deltas = (parts[number] for number in numbers)
        for delta in deltas:
            # Every row of the delta is looked up.
            whole = await asyncio.to_thread(whole.with_delta, delta)
        return whole

    # ------------------------------------------------------------- as cube_server.app.Plane

    async def command(self, body: bytes, asker: Asker) -> bytes:
        text = body.decode("utf-8", errors="replace")
        question = {"command": text, "peer": asker.peer, "token": asker.token}
        reply: str = await self.channel.ask("command", question)
        return reply.encode()

    async def ready(self) -> str:
        problem: str = await self.channel.ask("ready")
        return problem

    async def status(self) -> dict[str, Any]:
        status: dict[str, Any] = await self.channel.ask("status")
        return status

    async def metrics(self) -> bytes:
        text: str = await self.channel.ask("metrics")
        return text.encode()

    async def variables(self, names: str) -> str:
        text: str = await self.channel.ask("variables", {"names": names})
        return text

    def _make_app(self) -> FastAPI:
        from cube_server.app import make_app

        return make_app(self, self._limits, [self._dict_service], self._access)


async def _serve(end: socket.socket) -> None:
    # A terminal sends SIGINT to the whole group; the supervisor says when to end.
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: None)
    worker = Worker(end)
    ends = [asyncio.create_task(each.wait()) for each in (worker.done, worker.channel.closed)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    if not worker.done.is_set():
        log.error("the supervisor has ended: this worker ends too")


def main() -> None:
    """Serves until the supervisor says so or ends."""
    logs.configure("cube-server")
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
