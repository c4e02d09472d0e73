"""Several predictor processes on one port: Paddle holds the GIL of each while it runs a model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import time
from typing import Any

from ctr_serving.options import Options
from ctr_serving.plane import joined_metrics, joined_status
from cube_core.errors import ConfError, CubeError, PredictionError
from cube_core.wire.held_port import hold_port
from cube_core.worker_channel import Channel, start_worker
from cube_core.worker_restart import pause_after_s, start_again

log = logging.getLogger(__name__)

_START_TIMEOUT_S = 60.0
_ASK_TIMEOUT_S = 2.0
_END_TIMEOUT_S = 3.0


class _Worker:
    """One process and the channel to it."""

    def __init__(self, options: Options, supervisor: Supervisor) -> None:
        self.process, ours = start_worker("ctr_serving.worker", json.dumps(options.to_json()))
        self.listening = asyncio.Event()
        self._supervisor = supervisor
        self.channel = Channel(ours, self._answer)

    async def ask(self, what: str) -> Any:
        """What it says for itself.

        Raises:
            CubeError, asyncio.TimeoutError: it does not say.
        """
        return await asyncio.wait_for(self.channel.ask(what), _ASK_TIMEOUT_S)

    async def end(self, timeout_s: float) -> int:
        """Waits for the process, and kills it when that takes too long; returns its code."""
        try:
            return await asyncio.to_thread(self.process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return await asyncio.to_thread(self.process.wait)
        finally:
            self.channel.close()

    async def _answer(self, what: str, body: dict[str, Any], descriptors: list[int]) -> Any:
        del body, descriptors
        if what == "listening":
            self.listening.set()
            return None
        return await self._supervisor.answer(what)


class Supervisor:
    """Keeps `workers` predictors running that share the ports; the kernel deals out connections.

    Each loads and reloads the models by itself. A worker that ends is started again.
    """

    def __init__(self, options: Options, workers: int) -> None:
        self._options = options
        self._workers_num = workers
        self._workers: list[_Worker] = []
        self._restarts = 0
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then lets every worker answer what is under way.

        Raises:
            ConfError: a port cannot be opened, or no worker starts.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        server = self._options.server
        with (
            hold_port(server.host, server.port) as holder,
            hold_port(server.host, server.grpc_port, "--grpc_port") as grpc_holder,
        ):
            port, grpc_port = holder.getsockname()[1], grpc_holder.getsockname()[1]
            self._options = self._options.on_ports(port, grpc_port)
            keepers = [loop.create_task(self._keep(each)) for each in await self._start_all()]
            print(
                f"ctr-serving ready: port={port} grpc_port={grpc_port} workers={self._workers_num}",
                flush=True,
            )
            await self._stopping.wait()
        log.info("draining %d workers", len(self._workers))
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(self._drain(each) for each in list(self._workers)))

    async def answer(self, what: str) -> Any:
        """What workers ask, about all of them."""
        told = [each for each in await self._told(what) if each is not None]
        if what == "ready":
            if len(told) < self._workers_num:
                return f"{len(told)} of {self._workers_num} workers answer"
            return next((problem for problem in told if problem), "")
        if not told:
            raise PredictionError("no worker says how it is")
        if what == "metrics":
            own = (
                f"# TYPE ctr_worker_restarts counter\nctr_worker_restarts_total {self._restarts}\n"
            )
            return joined_metrics([*told, own]).decode()
        if what == "status":
            return joined_status(told, os.getpid()) | {"worker_restarts": self._restarts}
        raise ValueError(f"nobody asks a supervisor for {what!r}")

    async def _told(self, what: str) -> list[Any]:
        """What each worker says; None for one that does not."""

        async def ask(worker: _Worker) -> Any:
            with contextlib.suppress(CubeError, asyncio.TimeoutError):
                return await worker.ask(what)
            return None

        return list(await asyncio.gather(*(ask(each) for each in self._workers)))

    async def _start_all(self) -> list[_Worker]:
        starts = [self._start() for _ in range(self._workers_num)]
        outcomes = await asyncio.gather(*starts, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                for worker in self._workers:
                    worker.process.kill()
                    await worker.end(_END_TIMEOUT_S)
                raise outcome
        return list(self._workers)

    async def _start(self) -> _Worker:
        worker = _Worker(self._options, self)
        waits = [
            asyncio.create_task(each.wait()) for each in (worker.listening, worker.channel.closed)
        ]
        try:
            await asyncio.wait(waits, timeout=_START_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            if not worker.listening.is_set():
                worker.process.kill()
                await worker.end(_END_TIMEOUT_S)
        if not worker.listening.is_set():
            raise ConfError("command line", "--workers", "a worker does not start; see its log")
        self._workers.append(worker)
        return worker

    async def _keep(self, worker: _Worker) -> None:
        """Starts a worker again whenever it ends."""
        pause_s = 0.0
        while True:
            started_s = time.monotonic()
            await worker.channel.closed.wait()
            self._workers.remove(worker)
            self._restarts += 1
            code = await worker.end(_END_TIMEOUT_S)
            log.error("worker %d has ended with %d; another starts", worker.process.pid, code)
            pause_s = pause_after_s(time.monotonic() - started_s, pause_s)
            worker = await start_again(self._start, pause_s)

    async def _drain(self, worker: _Worker) -> None:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)
        await worker.end(self._options.server.drain_timeout_s + _END_TIMEOUT_S)
