"""HTTP routes of a shard server.

Imports fastapi, so import it where a third of a second does not matter.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from cube_core._native import Seeker
from cube_core.wire.http import error_response, read_body, service_router
from cube_core.wire.server import RpcServer
from cube_core.wire.service import Service
from cube_server.control import Control
from cube_server.metrics import ServerMetrics
from cube_server.settings import ServerSettings
from cube_server.versions import DictVersions


def make_app(
    settings: ServerSettings,
    seeker: Seeker,
    versions: DictVersions,
    control: Control,
    server: RpcServer,
    services: Sequence[Service],
) -> FastAPI:
    """The app that answers HTTP on the server's port."""
    app = FastAPI(title="cube-server", docs_url=None, redoc_url=None)
    metrics = ServerMetrics(seeker, versions, server)
    started_s = time.monotonic()

    @app.get("/health", response_class=PlainTextResponse)
    async def health() -> str:
        return "OK"

    @app.get("/ready", response_class=PlainTextResponse)
    async def ready() -> PlainTextResponse:
        if versions.served:
            return PlainTextResponse("OK")
        return PlainTextResponse(versions.last_error or "no version is served", status_code=503)

    @app.get("/version", response_class=PlainTextResponse)
    async def version() -> str:
        return "Cube Service"

    @app.get("/status")
    async def status() -> JSONResponse:
        on_disk = await asyncio.to_thread(versions.store.versions)
        return JSONResponse(
            {
                **control.state(),
                "ready": bool(versions.served),
                "last_error": versions.last_error,
                "uptime_s": round(time.monotonic() - started_s, 3),
                "versions": _tables(versions),
                "versions_on_disk": [str(each) for each in on_disk],
                "counters": _counters(seeker, server),
                "limits": {
                    "keys_per_request_max": settings.keys_per_request_max,
                    **asdict(settings.limits),
                    "keep_versions": settings.keep_versions,
                },
            }
        )

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return Response(await asyncio.to_thread(metrics.text), media_type="text/plain")

    @app.post("/ControlService/cmd")
    @app.post("/rec.mcube.ControlService/cmd", include_in_schema=False)
    async def command(request: Request) -> Response:
        try:
            body = await read_body(request, settings.limits)
            return Response(await control.run(body), media_type="application/json")
        except Exception as error:
            return error_response(request, error)

    app.include_router(service_router(services, limits=settings.limits))
    return app


def _tables(versions: DictVersions) -> list[dict[str, Any]]:
    return [
        {
            "version": str(each.version),
            "role": role,
            "dict_name": each.table.dict_name,
            "shard": each.table.shard,
            "shard_num": each.table.shard_num,
            "key_count": each.table.key_count,
            "value_bytes": each.table.value_bytes,
            "file_bytes": each.table.file_bytes,
            "memory_bytes": each.table.memory_bytes,
            "load_seconds": round(each.load_s, 6),
        }
        for role, each in versions.loaded()
    ]


def _counters(seeker: Seeker, server: RpcServer) -> dict[str, int]:
    return {
        "requests": seeker.request_count,
        "keys": seeker.key_count,
        "missing_keys": seeker.missing_count,
        "errors": seeker.error_count,
        "connections": server.connections_open,
        "connections_accepted": server.counters.connections_accepted,
        "connections_refused": server.counters.connections_refused,
        "connections_idle": server.counters.connections_idle,
        "peers_cut_off": server.counters.peers_cut_off,
    }
