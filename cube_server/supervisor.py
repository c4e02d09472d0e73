"""A shard server of several processes: workers answer seeks, this one does all the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cube_core._native import Seeker
from cube_core.access import Asker
from cube_core.wire.held_port import hold_port
from cube_server.control import control_service
from cube_server.control_plane import ControlPlane
from cube_server.counters import added, seek_counts
from cube_server.fleet import Fleet
from cube_server.loaded import LoadedTable
from cube_server.server import dict_service, ready_line, set_tables
from cube_server.settings import ServerSettings

if TYPE_CHECKING:
    from cube_core.wire.grpc_server import GrpcServer


class Supervisor:
    """Holds the tables in memory that its workers attach to, and runs every command.

    Workers share the port; the kernel deals out connections. gRPC is answered here.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._seeker = Seeker(settings.keys_per_request_max, settings.limits.frame_bytes_max)
        self._plane = ControlPlane(settings, self._publish, self._counts)
        for each in self._plane.dicts:
            self._seeker.set_tables(None, dict_name=each.name)
        self._plane.on_change(self._on_versions_change)
        self._grpc: GrpcServer | None = None

    async def start(self) -> None:
        """Opens the ports, starts the workers, then serves the version that the data directory
        names.

        Raises:
            OSError: the data directory cannot be created or read.
            ConfError: a port cannot be opened.
        """
        await self._plane.open()
        self._port_holder = hold_port(self._settings.host, self._settings.port)
        self._port = self._port_holder.getsockname()[1]
        dict_names = [each.name for each in self._plane.dicts]
        self._fleet = Fleet(self._settings, dict_names, self._port, self._answer)
        if self._settings.grpc_port is not None:
            loop = asyncio.get_running_loop()
            self._grpc = await asyncio.to_thread(self._start_grpc, loop, self._settings.grpc_port)
        await self._fleet.start()
        await self._plane.start()

    def ready_line(self) -> str:
        grpc_port = self._grpc.port if self._grpc else None
        return f"{ready_line(self._port, grpc_port, self._plane)} workers={self._settings.workers}"

    async def settled(self) -> None:
        """Ends the start: nothing is left to be done here, workers do so by themselves."""

    async def drain(self) -> None:
        """Takes nothing more, answers what is under way, and ends the workers."""
        self._port_holder.close()
        timeout_s = self._settings.drain_timeout_s
        ends = [self._plane.stop(), self._fleet.drain(timeout_s)]
        if self._grpc is not None:
            ends.append(asyncio.to_thread(self._grpc.stop, timeout_s))
        await asyncio.gather(*ends)

    async def _answer(self, what: str, body: dict[str, Any]) -> Any:
        """What workers ask."""
        if what == "command":
            asker = Asker(body["peer"], body["token"])
            return (await self._plane.command(body["command"].encode(), asker)).decode()
        if what == "ready":
            return await self._plane.ready()
        if what == "status":
            return await self._plane.status()
        if what == "variables":
            return await self._plane.variables(body["names"])
        if what == "metrics":
            return (await self._plane.metrics()).decode()
        raise ValueError(f"nobody asks a supervisor for {what!r}")

    async def _publish(
        self, dict_name: str, current: LoadedTable | None, others: Sequence[LoadedTable]
    ) -> None:
        set_tables(self._seeker, dict_name, current, others)
        await self._fleet.publish(dict_name, current, others)

    async def _counts(self) -> dict[str, int]:
        return added([seek_counts(self._seeker), await self._fleet.counts()])

    def _on_versions_change(self, serving: bool) -> None:
        if self._grpc is not None:
            self._grpc.set_serving(serving)

    def _start_grpc(self, loop: asyncio.AbstractEventLoop, port: int) -> GrpcServer:
        from cube_core.wire.grpc_server import GrpcServer

        services = (dict_service(self._seeker), control_service(self._plane.command))
        settings = self._settings
        server = GrpcServer(
            services, settings.limits, loop, settings.host, port, settings.server_tls()
        )
        server.set_serving(False)
        return server
