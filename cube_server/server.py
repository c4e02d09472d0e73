"""A shard server of one process, from its settings to its end."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import resource
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import uvloop

from cube_core._native import Seeker
from cube_core.wire.server import RpcServer
from cube_core.wire.service import Service
from cube_proto import dict_pb2
from cube_server.allocator import give_back_large_blocks
from cube_server.control import control_service
from cube_server.control_plane import ControlPlane
from cube_server.counters import added, seek_counts, wire_counts
from cube_server.loaded import LoadedTable
from cube_server.loop_seeks import LoopSeeks
from cube_server.seek_failures import SeekFailures
from cube_server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

_OTHER_FILES = 256


class Running(Protocol):
    """A server that can be started and ended, of one process or of several."""

    async def start(self) -> None: ...
    def ready_line(self) -> str: ...
    async def settled(self) -> None: ...
    async def drain(self) -> None: ...


def run(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is under way and returns.

    Raises:
        ConfError: a port cannot be opened.
    """
    allow_files(settings.limits.connections_max + _OTHER_FILES)
    give_back_large_blocks()
    uvloop.run(_serve(settings))


async def _serve(settings: ServerSettings) -> None:
    stop = _stop_signal()
    server = _server_of(settings)
    await server.start()
    print(server.ready_line(), flush=True)
    settling = asyncio.create_task(server.settled())
    await stop.wait()
    settling.cancel()
    log.info("stops: answers what is under way")
    await server.drain()


def _server_of(settings: ServerSettings) -> Running:
    if settings.workers == 1:
        return ShardServer(settings)
    from cube_server.supervisor import Supervisor

    return Supervisor(settings)


class ShardServer:
    """The parts of one shard server, put together."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._seeker = Seeker(settings.keys_per_request_max, settings.limits.frame_bytes_max)
        self._loop_seeks = LoopSeeks(self._seeker)
        self._failures = SeekFailures(self._seeker)
        self._plane = ControlPlane(settings, self._publish, self._counts)
        self._widths: dict[str, int] = {}
        for each in self._plane.dicts:
            self._seeker.set_tables(None, dict_name=each.name)
        self._dict_service = dict_service(self._seeker)
        self._server = RpcServer(
            [self._dict_service, control_service(self._plane.command)],
            self._make_app,
            host=settings.host,
            port=settings.port,
            grpc_port=settings.grpc_port,
            limits=settings.limits,
            fast_path=self._loop_seeks,
            tls=settings.server_tls(),
        )
        self._plane.on_change(self._server.set_serving)

    async def start(self) -> None:
        """Opens the ports, then serves the version that the data directory names.

        Raises:
            OSError: the data directory cannot be created or read.
            ConfError: a port cannot be opened.
        """
        await self._plane.open()
        await self._server.start()
        self._failures.start()
        await self._plane.start()

    def ready_line(self) -> str:
        return ready_line(self._server.port, self._server.grpc_port, self._plane)

    async def settled(self) -> None:
        """Ends the start, HTTP counted."""
        await freeze_when_started(self._server)

    async def drain(self) -> None:
        """Takes nothing more, answers what is under way, and closes all connections."""
        drained = self._server.drain(self._settings.drain_timeout_s)
        await asyncio.gather(self._plane.stop(), drained)
        self._failures.stop()

    async def _publish(
        self, dict_name: str, current: LoadedTable | None, others: Sequence[LoadedTable]
    ) -> None:
        set_tables(self._seeker, dict_name, current, others)
        self._widths[dict_name] = widest([*([current] if current else []), *others])
        self._loop_seeks.fit(max(self._widths.values()))

    async def _counts(self) -> dict[str, int]:
        return added([seek_counts(self._seeker), wire_counts(self._server)])

    def _make_app(self) -> FastAPI:
        from cube_server.app import make_app

        return make_app(
            self._plane, self._settings.limits, [self._dict_service], self._settings.access
        )


def dict_service(seeker: Seeker) -> Service:
    """DictService for every wire."""
    descriptor = dict_pb2.DESCRIPTOR.services_by_name["DictService"]
    return Service(descriptor, kernels={"seek": seeker.seek})


def set_tables(
    seeker: Seeker, dict_name: str, current: LoadedTable | None, others: Sequence[LoadedTable]
) -> None:
    """Lets a seeker answer a dict from these versions."""
    seeker.set_tables(
        current.table if current is not None else None,
        [each.table for each in others],
        dict_name=dict_name,
    )


def widest(versions: Sequence[LoadedTable]) -> int:
    """Width of the widest values of versions, in bytes; 1 without any."""
    return max((each.value_bytes_max for each in versions), default=1)


def ready_line(port: int, grpc_port: int | None, plane: ControlPlane) -> str:
    """What a server prints when it can serve."""
    current = plane.dicts[0].versions.current
    version = current.version if current else "none"
    grpc = "none" if grpc_port is None else grpc_port
    line = f"cube-server ready: port={port} grpc_port={grpc} version={version}"
    names = [each.name for each in plane.dicts]
    return line if len(names) == 1 else f"{line} dicts={','.join(names)}"


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM or SIGINT; a second SIGINT ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        stop.set()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


async def freeze_when_started(server: RpcServer) -> None:
    """Keeps what was made at the start out of garbage collections, which would hold the event loop
    for tens of milliseconds otherwise."""
    await server.http_started()
    gc.freeze()
    # At the end it is collected after all, or the kernels tell on stderr what nobody gave back.
    atexit.register(gc.unfreeze)


def allow_files(wanted: int) -> None:
    """Raises the soft limit on open files, so that `connections_max` is what limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
