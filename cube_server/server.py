"""One shard server, from its settings to its end."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from typing import TYPE_CHECKING

import uvloop

from cube_core._native import Seeker
from cube_core.wire.server import RpcServer
from cube_core.wire.service import Service
from cube_proto import dict_pb2
from cube_server.control import Control
from cube_server.download import Downloads
from cube_server.loop_seeks import LoopSeeks
from cube_server.settings import ServerSettings
from cube_server.store import DataDirectory
from cube_server.versions import DictVersions

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

_OTHER_FILES = 256


def run(settings: ServerSettings) -> None:
    """Serves until SIGTERM or SIGINT, then answers what is under way and returns.

    Raises:
        ConfError: a port cannot be opened.
    """
    _allow_files(settings.limits.connections_max + _OTHER_FILES)
    uvloop.run(_serve(settings))


async def _serve(settings: ServerSettings) -> None:
    stop = _stop_signal()
    shard_server = ShardServer(settings)
    await shard_server.start()
    print(shard_server.ready_line(), flush=True)
    await stop.wait()
    log.info("stops: answers what is under way")
    await shard_server.drain()


class ShardServer:
    """The parts of one shard server, put together."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._seeker = Seeker(settings.keys_per_request_max, settings.limits.frame_bytes_max)
        self._loop_seeks = LoopSeeks(self._seeker)
        self._store = store = DataDirectory(settings.data_dir, settings.dict_name, settings.shard)
        self._versions = DictVersions(
            store,
            self._seeker,
            in_memory=settings.in_memory,
            keep_versions=settings.keep_versions,
        )
        self._downloads = Downloads(store)
        self._control = Control(self._versions, self._downloads)
        seek = dict_pb2.DESCRIPTOR.services_by_name["DictService"]
        self._dict_service = Service(seek, kernels={"seek": self._seeker.seek})
        self._server = RpcServer(
            [self._dict_service, self._control.service()],
            self._make_app,
            host=settings.host,
            port=settings.port,
            grpc_port=settings.grpc_port,
            limits=settings.limits,
            fast_path=self._loop_seeks,
        )
        self._versions.on_change = self._on_versions_change

    async def start(self) -> None:
        """Opens the ports, then serves the version that the data directory names.

        Raises:
            OSError: the data directory cannot be created or read.
            ConfError: a port cannot be opened.
        """
        await asyncio.to_thread(self._store.open)
        await self._server.start()
        await self._versions.start()

    def ready_line(self) -> str:
        current = self._versions.current
        grpc_port = "none" if self._server.grpc_port is None else self._server.grpc_port
        version = current.version if current else "none"
        return (
            f"cube-server ready: port={self._server.port} grpc_port={grpc_port} version={version}"
        )

    async def drain(self) -> None:
        """Takes nothing more, answers what is under way, and closes all connections."""
        self._downloads.stop()
        await self._server.drain(self._settings.drain_timeout_s)

    def _on_versions_change(self) -> None:
        widths = [loaded.table.value_bytes for _, loaded in self._versions.loaded()]
        self._loop_seeks.fit(max(widths, default=1))
        self._server.set_serving(bool(self._versions.served))

    def _make_app(self) -> FastAPI:
        from cube_server.app import make_app

        return make_app(
            self._settings,
            self._seeker,
            self._versions,
            self._control,
            self._server,
            [self._dict_service],
        )


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


def _allow_files(wanted: int) -> None:
    """Raises the soft limit on open files, so that `connections_max` is what limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
