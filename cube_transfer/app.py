"""The daemon's HTTP port: shard tables for the servers, status for people."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from cube_core.access import Access
from cube_core.errors import ControlError
from cube_core.versions import Version
from cube_core.wire.http import readers_only, require_reader
from cube_core.wire.request_ids import RequestIds
from cube_transfer.control_routes import control_router
from cube_transfer.daemon import Daemon
from cube_transfer.metrics import TransferMetrics
from cube_transfer.model_routes import model_router
from cube_transfer.original_routes import original_router
from cube_transfer.page.listeners import Listeners
from cube_transfer.page.routes import page_router
from cube_transfer.status import history_of, status_of
from cube_transfer.table_links import FILES_PATH


class _TableResponse(FileResponse):
    # A block is one trip to a thread; the default of 64 KiB spends more on trips than on reading.
    chunk_size = 1 << 20


def create_app(
    daemon: Daemon, access: Access | None = None, listeners: Listeners | None = None
) -> FastAPI:
    """`GET /files/<version>/<dict_name>_part<shard>.table`, `/status`, `/history`, `/metrics`,
    `/health`, `/live`; the models of `model_routes`; the commands of `control_routes`, the
    original's answers of `original_routes`; the page.

    Args:
        access: who may ask what; without it, commands are taken from this machine only.
        listeners: those of the page.
    """
    access = access or Access()
    reading = [readers_only(access)]
    exposed = TransferMetrics(daemon)
    app = FastAPI(title="cube-transfer", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RequestIds)
    table_name = re.compile(rf"{re.escape(daemon.settings.conf.dict_name)}_part\d{{1,5}}\.table")

    @app.get(FILES_PATH + "/{version}/{name}")
    async def table(request: Request, version: str, name: str, signature: str = "") -> FileResponse:
        if not daemon.settings.links.is_signed(version, name, signature):
            require_reader(access, request)
        try:
            is_version = str(Version.parse(version)) == version
        except ControlError:
            is_version = False
        path = daemon.settings.output_address / version / name
        if not is_version or not table_name.fullmatch(name) or not path.is_file():
            raise HTTPException(404, f"{version}/{name}: no such table")
        return _TableResponse(path, media_type="application/octet-stream")

    @app.get("/status", dependencies=reading)
    async def status() -> dict[str, Any]:
        return status_of(daemon)

    @app.get("/history", dependencies=reading)
    async def history() -> list[dict[str, Any]]:
        return history_of(daemon)

    @app.get("/metrics", dependencies=reading)
    async def metrics() -> Response:
        exposed.look()
        text = await asyncio.to_thread(exposed.text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    @app.get("/health")
    @app.get("/live", include_in_schema=False)
    async def health() -> PlainTextResponse:
        return PlainTextResponse("OK")

    app.include_router(page_router(listeners or Listeners(), access))
    app.include_router(control_router(daemon, access))
    app.include_router(model_router(daemon.settings.model_deploy_path, reading))
    app.include_router(original_router(daemon), dependencies=reading)
    return app
