"""The predictor over HTTP: predictions as JSON, and what operators look at."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from ctr_serving.assembly import Assembly
from ctr_serving.http_predict import add_predict_route
from ctr_serving.http_schema import Shape
from ctr_serving.plane import Plane
from cube_core.access import Access
from cube_core.errors import NotServingError
from cube_core.wire.http import readers_only, service_router
from cube_core.wire.limits import WireLimits
from cube_core.wire.request_ids import RequestIds
from cube_core.wire.service import Service


def create_app(
    service: Service, assembly: Assembly, limits: WireLimits, plane: Plane, access: Access
) -> FastAPI:
    """The ASGI app of one predictor."""
    reading = [readers_only(access)]
    app = FastAPI(title="ctr-serving", docs_url=None, redoc_url=None)
    app.add_middleware(RequestIds)

    @app.get("/live", response_class=PlainTextResponse)
    async def live() -> str:
        """OK as long as the process lives."""
        return "OK"

    @app.get("/health", response_class=PlainTextResponse)
    @app.get("/ready", response_class=PlainTextResponse, include_in_schema=False)
    async def ready() -> Response:
        """200 once every engine serves a model, 503 with the reason before."""
        problem = await plane.ready()
        return PlainTextResponse(problem or "OK", status_code=503 if problem else 200)

    @app.get("/status", dependencies=reading)
    async def status() -> dict[str, Any]:
        """The served model, why a newer one is not served, and counters."""
        return await plane.status()

    @app.get("/metrics", dependencies=reading)
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(await plane.metrics(), media_type=CONTENT_TYPE_LATEST)

    add_predict_route(app, service, lambda: shape_of_instances(assembly), limits)
    app.include_router(service_router([service], limits=limits))
    return app


def shape_of_instances(assembly: Assembly) -> Shape | None:
    """What an instance has to have for the model that is served now; None with several models, of
    which each may take another part of it.

    Raises:
        NotServingError: an engine has no model.
    """
    models: list[Any] = [each.slot.engine for each in assembly.engines]
    if None in models:
        problem = assembly.engines[models.index(None)].slot.problem
        raise NotServingError(f"no model is loaded yet: {problem}")
    if len(models) > 1:
        return None
    manifest = models[0].manifest
    return Shape(manifest.slots, manifest.dense_dim, many_ids=assembly.batches is None)
