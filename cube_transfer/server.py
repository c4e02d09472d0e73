"""Puts the daemon together and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import uvicorn

from cube_core.access import Access
from cube_core.conf.transfer_conf import TransferConf
from cube_core.errors import ConfError
from cube_core.tls import ClientTls, ServerTls, TlsFiles
from cube_transfer.app import create_app
from cube_transfer.control_client import ServersHttp
from cube_transfer.daemon import Daemon
from cube_transfer.limits import REPLICA_DEADLINE_S, SAMPLE_INTERVAL_S
from cube_transfer.page.page import Page
from cube_transfer.page.sampling import Sampler
from cube_transfer.settings import Settings
from cube_transfer.state import State
from cube_transfer.table_links import TableLinks
from cube_transfer.together import all_together

log = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 1
_SOURCE_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


def run(
    conf: TransferConf,
    *,
    host: str,
    port: int,
    state_dir: Path,
    replica_deadline_s: float = REPLICA_DEADLINE_S,
    sample_interval_s: float = SAMPLE_INTERVAL_S,
    access: Access,
    tls: TlsFiles,
) -> None:
    """Runs the daemon until SIGTERM or SIGINT.

    Raises:
        ConfError: the port cannot be listened on.
        DeployError: the state directory is another daemon's or cannot be read.
    """
    for directory in (conf.output_address, conf.tmp_address, conf.model_deploy_path):
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_listen(host, port)) as listener:
        state = State(state_dir)
        with contextlib.closing(state):
            port = listener.getsockname()[1]
            scheme = "https" if tls.cert_file else "http"
            base_url = f"{scheme}://{conf.transfer_address}:{port}"
            links = TableLinks.kept_in(state_dir, base_url)
            settings = Settings(conf, links, replica_deadline_s, sample_interval_s)
            asyncio.run(_serve(settings, listener, state, access, tls))


async def _serve(
    settings: Settings, listener: socket.socket, state: State, access: Access, tls: TlsFiles
) -> None:
    conf, port = settings.conf, listener.getsockname()[1]
    _warn_of(conf, listener.getsockname()[0])
    client_tls = ClientTls(tls) if tls != TlsFiles() else None
    async with (
        httpx.AsyncClient(timeout=_SOURCE_TIMEOUT, follow_redirects=True) as source_http,
        ServersHttp(access.operate_token, client_tls) as servers,
        # Who only looks shows the lesser token.
        ServersHttp(access.read_token or access.operate_token, client_tls) as looking,
    ):
        daemon = Daemon(settings, state, source_http, servers)
        page = Page(daemon, Sampler(conf, looking, settings.sample_interval_s))
        server = _HttpServer(
            uvicorn.Config(
                create_app(daemon, access, page.listeners),
                log_config=None,
                log_level=logging.WARNING,
                access_log=False,
                # Else a header could say who asks, and the environment whose.
                proxy_headers=False,
                lifespan="off",
                timeout_graceful_shutdown=_STOP_TIMEOUT_S,
            ),
            ServerTls(tls) if tls.cert_file else None,
            on_started=lambda: print(f"cube-transfer ready: port={port}", flush=True),
        )
        work = asyncio.ensure_future(
            all_together([server.serve_until_cancelled(listener), daemon.run(), page.run()])
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, work.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await work
    log.info("stopped")


class _HttpServer(uvicorn.Server):
    """uvicorn as one of several tasks of a process: signals are the process's business."""

    def __init__(
        self, config: uvicorn.Config, tls: ServerTls | None, on_started: Callable[[], None]
    ) -> None:
        super().__init__(config)
        config.load()
        if tls is not None:
            # uvicorn's own would keep the first certificates for good.
            config.ssl = tls.context
        self._on_started = on_started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_started()

    async def serve_until_cancelled(self, listener: socket.socket) -> None:
        serving = asyncio.ensure_future(self.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        finally:
            self.should_exit = True
            await serving


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), reuse_port=False)
    except OSError as error:
        raise ConfError("command line", "--port", f"{host}:{port}: {error.strerror}") from error


def _warn_of(conf: TransferConf, listen_host: str) -> None:
    if conf.buildtool_local:
        log.warning("buildtool_local is not used: the daemon runs its own cube-builder")
    if conf.download_mode != "http":
        log.warning("download_mode %s: servers fetch over http all the same", conf.download_mode)
    try:
        reachable = ipaddress.ip_address(conf.transfer_address).is_loopback
    except ValueError:
        reachable = conf.transfer_address == "localhost"
    if ipaddress.ip_address(listen_host).is_loopback and not reachable:
        log.warning(
            "transfer_address %s is where servers fetch tables, but only %s is listened on; "
            "give --host",
            conf.transfer_address,
            listen_host,
        )
