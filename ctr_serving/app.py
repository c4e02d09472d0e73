"""The predictor over HTTP: predictions as JSON, and what operators look at."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.http_predict import add_predict_route
from ctr_serving.model_slot import ModelSlot
from cube_core.wire.http import service_router
from cube_core.wire.limits import WireLimits
from cube_core.wire.service import Service


def create_app(
    service: Service, conf: EngineConf, slot: ModelSlot, counters: Counters, limits: WireLimits
) -> FastAPI:
    """The ASGI app of one predictor."""
    app = FastAPI(title="ctr-serving", docs_url=None, redoc_url=None)

    @app.get("/health", response_class=PlainTextResponse)
    async def health() -> str:
        """OK as long as the process lives."""
        return "OK"

    @app.get("/ready", response_class=PlainTextResponse)
    async def ready() -> Response:
        """200 once a model is served, 503 with the reason before."""
        if slot.engine is not None:
            return PlainTextResponse("OK")
        return PlainTextResponse(f"no model is loaded yet: {slot.problem}", status_code=503)

    @app.get("/status")
    async def status() -> dict[str, Any]:
        """The served model, why a newer one is not served, and counters."""
        return status_of(conf, slot, counters)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(counters.registry), media_type=CONTENT_TYPE_LATEST)

    add_predict_route(app, service, slot, limits)
    app.include_router(service_router([service], limits=limits))
    return app


def status_of(conf: EngineConf, slot: ModelSlot, counters: Counters) -> dict[str, Any]:
    """What /status answers."""
    engine = slot.engine
    model = engine and {
        "version": engine.manifest.version,
        "directory": str(engine.directory),
        "load_seconds": round(engine.load_seconds, 3),
        "switched_at_s": round(slot.switched_at_s, 3),
    }
    return {
        "engine": conf.name,
        "sparse_param_service_type": conf.sparse_service,
        "dict_name": conf.dict_name,
        "model": model,
        "problem": slot.problem,
        "switches": slot.switch_count,
        "refusals": slot.refusal_count,
        "requests_pending": counters.pending,
        "requests": dict(counters.requests),
        "rows": counters.rows,
        "missing_keys": int(counters.missing_by_slot.sum()),
        "missing_keys_by_slot": counters.missing_by_slot.tolist(),
        "failed_keys": int(counters.failed_by_slot.sum()),
        "failed_keys_by_slot": counters.failed_by_slot.tolist(),
    }
