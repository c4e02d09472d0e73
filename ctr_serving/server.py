"""The predictor put together, from its start to the end of its drain."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import time
from dataclasses import dataclass
from typing import Any

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.frame_path import FramePath
from ctr_serving.model_slot import ModelSlot
from ctr_serving.op import CtrOp
from ctr_serving.predictor import import_paddle
from ctr_serving.reload import Reloader
from ctr_serving.service import PredictionService
from ctr_serving.sources import opened
from cube_core.errors import ModelError
from cube_core.wire.limits import WireLimits
from cube_core.wire.server import RpcServer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerConf:
    """Flags of the process; port 0 is any free one."""

    host: str
    port: int
    grpc_port: int
    reload_interval_ms: int
    rows_per_request_max: int
    requests_pending_max: int
    queue_timeout_ms: int
    drain_timeout_s: float


class CtrServer:
    """One predictor process."""

    def __init__(self, conf: EngineConf, server_conf: ServerConf) -> None:
        self._conf = conf
        self._server_conf = server_conf
        self._slot = ModelSlot()
        self._counters = Counters(self._slot)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then answers what is under way.

        Raises:
            ConfError: a port cannot be opened.
        """
        self._handle_signals()
        async with opened(self._conf) as source:
            op = CtrOp(
                self._conf,
                self._slot,
                source,
                self._counters,
                rows_per_request_max=self._server_conf.rows_per_request_max,
                queue_timeout_s=self._server_conf.queue_timeout_ms / 1000,
            )
            await self._serve(op)

    async def _serve(self, op: CtrOp) -> None:
        server = self._new_server(op)
        await server.start()
        print(f"ctr-serving ready: port={server.port} grpc_port={server.grpc_port}", flush=True)
        watch = asyncio.create_task(self._watch(op, server))
        await self._stopping.wait()
        log.info("draining")
        server.set_serving(False)
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await server.drain(self._server_conf.drain_timeout_s)

    def _new_server(self, op: CtrOp) -> RpcServer:
        limits = WireLimits()
        service = PredictionService(
            op, self._counters, requests_pending_max=self._server_conf.requests_pending_max
        ).as_service()

        def app() -> Any:
            from ctr_serving.app import create_app

            return create_app(service, self._conf, self._slot, self._counters, limits)

        return RpcServer(
            [service],
            app,
            host=self._server_conf.host,
            port=self._server_conf.port,
            grpc_port=self._server_conf.grpc_port,
            limits=limits,
            batch_path=self._frame_path(op, limits),
        )

    def _frame_path(self, op: CtrOp, limits: WireLimits) -> FramePath:
        return FramePath(
            self._slot,
            op.batches,
            self._counters,
            limits,
            batch_rows_max=self._conf.batch_rows_max,
            rows_per_request_max=self._server_conf.rows_per_request_max,
            requests_pending_max=self._server_conf.requests_pending_max,
        )

    async def _watch(self, op: CtrOp, server: RpcServer) -> None:
        start_s = time.monotonic()
        try:
            await asyncio.to_thread(import_paddle)
        except ModelError as error:
            log.error("%s", error)
            self._slot.refuse(str(error))
            return
        # Paddle took them away.
        self._handle_signals()
        # What was imported stays: without it a full collection holds up requests for less long.
        gc.freeze()
        log.info("paddle is imported, in %.2f s", time.monotonic() - start_s)
        reloader = Reloader(
            self._conf,
            self._slot,
            op.probe,
            interval_s=self._server_conf.reload_interval_ms / 1000,
            on_switch=lambda: server.set_serving(True),
        )
        await reloader.run()

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            loop.add_signal_handler(number, self._stopping.set)
