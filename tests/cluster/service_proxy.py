"""A Service in front of pods: each new connection goes to one of those that are ready, and stays
there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator


class ServiceProxy:
    """Forwards connections to ports of this machine.

    Attributes:
        port: where it listens.
        targets: the ports of pods that are ready; changed by the test.
    """

    def __init__(self) -> None:
        self.port = 0
        self.targets: list[int] = []
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._connections: set[asyncio.Task[None]] = set()

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[ServiceProxy]:
        proxy, started = cls(), threading.Event()
        thread = threading.Thread(target=lambda: asyncio.run(proxy._serve(started)))
        thread.start()
        started.wait()
        try:
            yield proxy
        finally:
            proxy._loop.call_soon_threadsafe(proxy._stopping.set)
            thread.join()

    async def _serve(self, started: threading.Event) -> None:
        self._loop.close()
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._stopping.wait()
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        targets = list(self.targets)
        with contextlib.closing(writer):
            if not targets:
                return
            try:
                port = targets[next(self._turns) % len(targets)]
                there, to_there = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                return
            with contextlib.closing(to_there):
                forward = asyncio.ensure_future(_copy(reader, to_there))
                try:
                    # What the pod sends last is sent on before its end is.
                    await _copy(there, writer)
                finally:
                    forward.cancel()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
