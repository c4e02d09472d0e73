"""HTTP routes of a shard server.

Imports fastapi, so import it where a third of a second does not matter.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.types import Receive, Scope, Send

from cube_core.access import Access, Asker
from cube_core.log import set_request_id
from cube_core.wire.http import asker_of, error_response, read_body, readers_only, service_router
from cube_core.wire.limits import WireLimits
from cube_core.wire.request_ids import HEADER, RequestIds, request_id_of
from cube_core.wire.service import Service
from cube_server.background import let_requests_pass


class Plane(Protocol):
    """Who answers for the whole server: its `ControlPlane`, or the way there."""

    async def command(self, body: bytes, asker: Asker) -> bytes: ...
    async def ready(self) -> str: ...
    async def status(self) -> dict[str, Any]: ...
    async def metrics(self) -> bytes: ...
    async def variables(self, names: str) -> str: ...


COMMAND_PATHS = ("/ControlService/cmd", "/rec.mcube.ControlService/cmd")


class ShardApp(FastAPI):
    """Answers commands by itself: they come while seeks are answered by the same loop, and the
    layers of a FastAPI route take it longer than a switch of versions.

    Attributes:
        command: the endpoint of `COMMAND_PATHS`, which is a route for the description only.
    """

    command: Callable[[Request], Awaitable[Response]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] in COMMAND_PATHS and scope["method"] == "POST":
            await let_requests_pass()
            request = Request(scope, receive)
            request_id = request_id_of(request.headers.get(HEADER, ""))
            set_request_id(request_id)
            response = await self.command(request)
            response.headers[HEADER] = request_id
            await response(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


def make_app(
    plane: Plane, limits: WireLimits, services: Sequence[Service], access: Access
) -> FastAPI:
    """The app that answers HTTP on the server's port."""
    reading = [readers_only(access)]
    app = ShardApp(title="cube-server", docs_url=None, redoc_url=None)
    app.add_middleware(RequestIds)

    @app.get("/live", response_class=PlainTextResponse)
    async def live() -> str:
        return "OK"

    @app.get("/health", response_class=PlainTextResponse)
    @app.get("/ready", response_class=PlainTextResponse, include_in_schema=False)
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

    @app.post(COMMAND_PATHS[0])
    @app.post(COMMAND_PATHS[1], include_in_schema=False)
    async def command(request: Request) -> Response:
        try:
            body = await read_body(request, limits)
            return Response(
                await plane.command(body, asker_of(request)), media_type="application/json"
            )
        except Exception as error:
            return error_response(request, error)

    app.command = command
    app.include_router(service_router(services, limits=limits))
    return app
