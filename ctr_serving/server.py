"""The predictor put together, from its start to the end of its drain."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import gc
import logging
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ctr_serving.assembly import Assembly, EngineSlot, assemble_op, assemble_workflow
from ctr_serving.conf import EngineConf
from ctr_serving.frame_path import FramePath
from ctr_serving.options import ServerConf
from ctr_serving.plane import Plane, ProcessPlane
from ctr_serving.predictor import import_paddle
from ctr_serving.reload import Reloader
from ctr_serving.service import PredictionService
from ctr_serving.sources import OpenSources
from ctr_serving.workflow_conf import Node
from cube_core.access import Access, authorization
from cube_core.errors import ModelError
from cube_core.tls import ClientTls, Renewed, ServerTls
from cube_core.wire.limits import WireLimits
from cube_core.wire.server import RpcServer

if TYPE_CHECKING:
    from ctr_serving.model_fetch import ModelFetcher

log = logging.getLogger(__name__)

_REFUSED_AT_ONCE_MAX = 256
_SWITCH_INTERVAL_S = 0.0005
"""Python's own 5 ms are what requests waited for while a model was tried out in a thread."""


class CtrServer:
    """One predictor process.

    Args:
        confs: the engines.
        groups: of the workflow that answers; None for the op of the one engine.
        plane_factory: what operators see.
        on_listening: awaited once the ports are open.
        is_worker: whether the ports are shared with other processes.
    """

    def __init__(
        self,
        confs: Sequence[EngineConf],
        server_conf: ServerConf,
        groups: Sequence[Sequence[Node]] | None = None,
        *,
        plane_factory: Callable[[Assembly], Plane] = ProcessPlane,
        on_listening: Callable[[], Awaitable[None]] | None = None,
        is_worker: bool = False,
    ) -> None:
        self._confs = confs
        self._groups = groups
        self._server_conf = server_conf
        self._plane_factory = plane_factory
        self._on_listening = on_listening
        self._is_worker = is_worker
        self._stopping = asyncio.Event()

    @property
    def _interval_s(self) -> float:
        return self._server_conf.reload_interval_ms / 1000

    def stop(self) -> None:
        """Lets `run` answer what is under way and return."""
        self._stopping.set()

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then answers what is under way.

        Raises:
            ConfError: a port cannot be opened, or an op not be imported.
        """
        self._handle_signals()
        async with OpenSources(spin_us=self._server_conf.seek_spin_us) as sources:
            await self._serve(await self._assembled(sources))

    async def _assembled(self, sources: OpenSources) -> Assembly:
        rows_per_request_max = self._server_conf.rows_per_request_max
        queue_timeout_s = self._server_conf.queue_timeout_ms / 1000
        if self._groups is None:
            return await assemble_op(
                self._confs[0],
                sources,
                rows_per_request_max=rows_per_request_max,
                queue_timeout_s=queue_timeout_s,
            )
        return await assemble_workflow(
            self._confs,
            self._groups,
            sources,
            rows_per_request_max=rows_per_request_max,
            queue_timeout_s=queue_timeout_s,
        )

    async def _serve(self, assembly: Assembly) -> None:
        server = self._new_server(assembly)
        await server.start()
        if self._on_listening is None:
            print(f"ctr-serving ready: port={server.port} grpc_port={server.grpc_port}", flush=True)
        else:
            await self._on_listening()
        watch = asyncio.create_task(self._watch(assembly, server))
        await self._stopping.wait()
        log.info("draining")
        server.set_serving(False)
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch
        await server.drain(self._server_conf.drain_timeout_s)

    def _new_server(self, assembly: Assembly) -> RpcServer:
        # One connection may have more under way than are admitted: what is too much is to be
        # refused at once, and not to wait unread while its time passes.
        limits = WireLimits(
            in_flight_max=self._server_conf.requests_pending_max + _REFUSED_AT_ONCE_MAX,
            slow_request_ms=self._server_conf.slow_request_ms,
        )
        service = PredictionService(
            assembly.op,
            assembly.counters,
            requests_pending_max=self._server_conf.requests_pending_max,
            request_bytes_pending_max=self._server_conf.request_bytes_pending_max,
        ).as_service()

        plane = self._plane_factory(assembly)
        access = Access.read(self._server_conf.read_token_file)
        tls = self._server_conf.tls

        def app() -> Any:
            from ctr_serving.app import create_app

            return create_app(service, assembly, limits, plane, access)

        return RpcServer(
            [service],
            app,
            host=self._server_conf.host,
            port=self._server_conf.port,
            grpc_port=self._server_conf.grpc_port,
            limits=limits,
            batch_path=self._frame_path(assembly, limits),
            reuse_port=self._is_worker,
            tls=ServerTls(tls) if tls.cert_file else None,
        )

    def _frame_path(self, assembly: Assembly, limits: WireLimits) -> FramePath | None:
        if assembly.batches is None:
            return None
        engine = assembly.engines[0]
        return FramePath(
            engine.slot,
            assembly.batches,
            assembly.counters,
            limits,
            batch_rows_max=engine.conf.batch_rows_max,
            rows_per_request_max=self._server_conf.rows_per_request_max,
            requests_pending_max=self._server_conf.requests_pending_max,
        )

    async def _watch(self, assembly: Assembly, server: RpcServer) -> None:
        try:
            await self._take_models(assembly, server)
        except Exception as error:
            # Nobody awaits it before the end, which it must not keep from draining.
            log.exception("new models are not taken any more")
            for engine in assembly.engines:
                engine.slot.refuse(f"new models are not taken any more: {error}")

    async def _take_models(self, assembly: Assembly, server: RpcServer) -> None:
        start_s = time.monotonic()
        try:
            await asyncio.to_thread(import_paddle)
        except ModelError as error:
            log.error("%s", error)
            for engine in assembly.engines:
                engine.slot.refuse(str(error))
            return
        # Paddle took them away.
        self._handle_signals()
        # A thread that loads a model gives the interpreter back once the loop has waited so long.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        # What was imported stays: without it a full collection holds up requests for less long.
        gc.freeze()
        # At the end it is collected after all, or the kernels tell on stderr what nobody gave back.
        atexit.register(gc.unfreeze)
        log.info("paddle is imported, in %.2f s", time.monotonic() - start_s)
        reloaders = [
            Reloader(
                engine.conf,
                engine.slot,
                engine.probe,
                load=engine.load,
                interval_s=self._interval_s,
                on_switch=lambda: server.set_serving(assembly.is_ready),
            )
            for engine in assembly.engines
        ]
        fetching = [self._fetcher(each) for each in assembly.engines if each.conf.model_url]
        await asyncio.gather(
            *(reloader.run() for reloader in reloaders),
            *(each.run(self._interval_s) for each in fetching),
        )

    def _fetcher(self, engine: EngineSlot) -> ModelFetcher:
        # Only who fetches needs it, and it takes a tenth of a second.
        import httpx

        from ctr_serving.model_fetch import ModelFetcher

        conf = self._server_conf
        headers = authorization(Access.read(conf.read_token_file).read_token)
        tls = ClientTls(conf.tls) if engine.conf.model_url.startswith("https") else None

        def new_client() -> httpx.AsyncClient:
            verify = tls.context() if tls else False
            return httpx.AsyncClient(headers=headers, verify=verify, trust_env=False)

        return ModelFetcher(
            engine.conf.model_url,
            engine.conf.model_path.parent,
            Renewed(new_client, tls),
            partial(setattr, engine.slot, "source_problem"),
        )

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # A terminal sends SIGINT to the whole group; the supervisor of a worker says when to end.
        for number in (signal.SIGTERM,) if self._is_worker else (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            loop.add_signal_handler(number, self._stopping.set)
