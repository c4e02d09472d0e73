"""The predictor over HTTP: predictions as JSON, and what operators look at."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ctr_serving.assembly import Assembly, EngineSlot
from ctr_serving.cached_source import cache_status
from ctr_serving.http_predict import add_predict_route
from cube_core.wire.http import service_router
from cube_core.wire.limits import WireLimits
from cube_core.wire.service import Service


def create_app(service: Service, assembly: Assembly, limits: WireLimits) -> FastAPI:
    """The ASGI app of one predictor."""
    counters = assembly.counters
    app = FastAPI(title="ctr-serving", docs_url=None, redoc_url=None)

    @app.get("/health", response_class=PlainTextResponse)
    async def health() -> str:
        """OK as long as the process lives."""
        return "OK"

    @app.get("/ready", response_class=PlainTextResponse)
    async def ready() -> Response:
        """200 once every engine serves a model, 503 with the reason before."""
        for each in assembly.engines:
            if each.slot.engine is None:
                text = f"no model is loaded yet: {each.slot.problem}"
                return PlainTextResponse(text, status_code=503)
        return PlainTextResponse("OK")

    @app.get("/status")
    async def status() -> dict[str, Any]:
        """The served model, why a newer one is not served, and counters."""
        return status_of(assembly)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)

    add_predict_route(app, service, assembly.engines[0].slot, limits)
    app.include_router(service_router([service], limits=limits))
    return app


def status_of(assembly: Assembly) -> dict[str, Any]:
    """What /status answers: the first engine's fields, counters, and all engines."""
    counters = assembly.counters
    engines = [_engine_status(each) for each in assembly.engines]
    return {
        **engines[0],
        "requests_pending": counters.pending,
        "requests": dict(counters.requests),
        "rows": counters.rows,
        "missing_keys": int(counters.missing_by_slot.sum()),
        "missing_keys_by_slot": counters.missing_by_slot.tolist(),
        "failed_keys": int(counters.failed_by_slot.sum()),
        "failed_keys_by_slot": counters.failed_by_slot.tolist(),
        "engines": engines,
    }


def _engine_status(each: EngineSlot) -> dict[str, Any]:
    engine, slot = each.slot.engine, each.slot
    model = engine and {
        "version": engine.manifest.version,
        "directory": str(engine.directory),
        "load_seconds": round(engine.load_seconds, 3),
        "switched_at_s": round(slot.switched_at_s, 3),
    }
    return {
        "engine": each.conf.name,
        "sparse_param_service_type": each.conf.sparse_service,
        "dict_name": each.conf.dict_name,
        "model": model,
        "problem": slot.problem,
        "switches": slot.switch_count,
        "refusals": slot.refusal_count,
        "cache": cache_status(engine and engine.embedding),
    }
