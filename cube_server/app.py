"""HTTP routes of a shard server.

Imports fastapi, so import it where a third of a second does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from cube_core.access import Access, Asker
from cube_core.wire.http import asker_of, error_response, read_body, readers_only, service_router
from cube_core.wire.limits import WireLimits
from cube_core.wire.service import Service


class Plane(Protocol):
    """Who answers for the whole server: its `ControlPlane`, or the way there."""

    async def command(self, body: bytes, asker: Asker) -> bytes: ...
    async def ready(self) -> str: ...
    async def status(self) -> dict[str, Any]: ...
    async def metrics(self) -> bytes: ...
    async def variables(self, names: str) -> str: ...


def make_app(
    plane: Plane, limits: WireLimits, services: Sequence[Service], access: Access
) -> FastAPI:
    """The app that answers HTTP on the server's port."""
    reading = [readers_only(access)]
    app = FastAPI(title="cube-server", docs_url=None, redoc_url=None)

    @app.get("/health", response_class=PlainTextResponse)
    async def health() -> str:
        return "OK"

    @app.get("/ready", response_class=PlainTextResponse)
    async def ready() -> PlainTextResponse:
        problem = await plane.ready()
        return PlainTextResponse(problem or "OK", status_code=503 if problem else 200)

    @app.get("/version", response_class=PlainTextResponse)
    async def version() -> str:
        return "Cube Service"

    @app.get("/status", dependencies=reading)
    async def status() -> JSONResponse:
        return JSONResponse(await plane.status())

    @app.get("/metrics", dependencies=reading)
    async def metrics() -> Response:
        return Response(await plane.metrics(), media_type="text/plain")

    @app.get("/vars", response_class=PlainTextResponse, dependencies=reading)
    @app.get(
        "/vars/{names}",
        response_class=PlainTextResponse,
        include_in_schema=False,
        dependencies=reading,
    )
    async def variables(names: str = "") -> PlainTextResponse:
        text = await plane.variables(names)
        if not text:
            return PlainTextResponse(f"Fail to find any bvar by `{names}`\n", status_code=404)
        return PlainTextResponse(text)

    @app.post("/ControlService/cmd")
    @app.post("/rec.mcube.ControlService/cmd", include_in_schema=False)
    async def command(request: Request) -> Response:
        try:
            body = await read_body(request, limits)
            return Response(
                await plane.command(body, asker_of(request)), media_type="application/json"
            )
        except Exception as error:
            return error_response(request, error)

    app.include_router(service_router(services, limits=limits))
    return app
