"""One of several predictor processes on one port (`ctr-serving --workers=N`).

Run by the supervisor: `python -m ctr_serving.worker <descriptor of the channel> <options>`. It ends
with it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from typing import Any

import uvloop

from ctr_serving.assembly import Assembly
from ctr_serving.options import Options
from ctr_serving.plane import ProcessPlane
from ctr_serving.server import CtrServer
from cube_core import log as logs
from cube_core.worker_channel import Channel


class WorkerPlane:
    """Of all processes: what the supervisor says."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def ready(self) -> str:
        problem: str = await self._channel.ask("ready")
        return problem

    async def status(self) -> dict[str, Any]:
        status: dict[str, Any] = await self._channel.ask("status")
        return status

    async def metrics(self) -> bytes:
        text: str = await self._channel.ask("metrics")
        return text.encode()


class Worker:
    """A predictor that tells its supervisor what it has counted."""

    def __init__(self, end: socket.socket, options: Options) -> None:
        self._channel = Channel(end, self._answer)
        self._server = CtrServer(
            *options.read(),
            plane_factory=self._plane,
            on_listening=self._tell_listening,
            is_worker=True,
        )

    async def run(self) -> None:
        """Serves until SIGTERM, or until the supervisor ends."""
        end = asyncio.create_task(self._channel.closed.wait())
        end.add_done_callback(lambda _: self._server.stop())
        try:
            await self._server.run()
        finally:
            end.cancel()

    def _plane(self, assembly: Assembly) -> WorkerPlane:
        self._own = ProcessPlane(assembly)
        return WorkerPlane(self._channel)

    async def _tell_listening(self) -> None:
        await self._channel.ask("listening")

    async def _answer(self, what: str, body: dict[str, Any], descriptors: list[int]) -> Any:
        del body, descriptors
        if what == "ready":
            return await self._own.ready()
        if what == "status":
            return await self._own.status()
        if what == "metrics":
            return (await self._own.metrics()).decode()
        raise ValueError(f"nobody asks a worker for {what!r}")


async def _serve(end: socket.socket, options: Options) -> None:
    await Worker(end, options).run()


def main() -> None:
    """Serves until the supervisor says so or ends."""
    logs.configure("ctr-serving")
    # A terminal sends SIGINT to the whole group; the supervisor says when to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = Options.from_json(json.loads(sys.argv[2]))
    uvloop.run(_serve(socket.socket(fileno=int(sys.argv[1])), options))


if __name__ == "__main__":
    main()
