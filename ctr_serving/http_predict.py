"""`POST /v1/ctr/predict`: JSON in and out around the handler that every wire has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import models_json_schema

from ctr_serving.http_schema import (
    Failure,
    FieldError,
    InvalidRequest,
    PredictRequest,
    PredictResponse,
    Shape,
)
from cube_core._native import parse_ctr_response
from cube_core.errors import PredictionError
from cube_core.request_log import request_log
from cube_core.wire.faults import fault_of
from cube_core.wire.http import peer_address, read_body
from cube_core.wire.limits import WireLimits
from cube_core.wire.service import RpcContext, Service

PATH = "/v1/ctr/predict"

JSON_BYTES_MAX = 16 << 20
"""Numbers take some ten times the memory of their digits while a body is read."""

# About 0.3 ms of parsing; larger bodies are parsed in a thread.
_ON_LOOP_BYTES_MAX = 32 << 10
_ON_LOOP_ANSWER_BYTES_MAX = 4 << 10
_MESSAGES_MAX = 10
# Some 30 years; a float does not hold every number that there is.
_TIMEOUT_MS_MAX = 10**12
_REF_TEMPLATE = "#/components/schemas/{model}"

T = TypeVar("T")


def add_predict_route(
    app: FastAPI,
    service: Service,
    shape_of_instances: Callable[[], Shape | None],
    limits: WireLimits,
) -> None:
    """Adds the route and its schema to `app`.

    Args:
        service: `inference` answers, `debug` when the caller asks for it.
        shape_of_instances: of the model that is served now; None when only the ops know it. Raises
            PredictionError when there is no model.
    """
    limits = replace(limits, frame_bytes_max=min(limits.frame_bytes_max, JSON_BYTES_MAX))
    router = APIRouter(tags=["v1"])

    @router.post(
        PATH,
        response_model=PredictResponse,
        operation_id="predict",
        summary="Predicts instances",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref_of(PredictRequest)}},
            }
        },
        responses={
            422: {"model": InvalidRequest, "description": "A field is wrong"},
            413: {"model": Failure, "description": "Over a limit; the text names it"},
            503: {"model": Failure, "description": "Nothing, or no more, can be predicted now"},
            504: {"model": Failure, "description": "No answer in time"},
        },
    )
    async def predict(
        request: Request,
        debug: bool = False,
        timeout_ms: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response:
        """All instances are predicted, or none.

        `debug=true` has version, time of each stage and missing keys told in `message`. After
        `timeout_ms` nobody waits for the answer any more, and no work is spent on it.
        """
        context = RpcContext(peer_address(request))
        if timeout_ms is not None:
            context.deadline_s = time.monotonic() + min(timeout_ms, _TIMEOUT_MS_MAX) / 1000
        method = service.methods["debug" if debug else "inference"]
        try:
            body = await read_body(request, limits)
            payload = await _inline_or_thread(
                len(body) <= _ON_LOOP_BYTES_MAX, _payload_of, body, shape_of_instances
            )
            answer = await method.handler(payload, context)
        except ValidationError as error:
            _tell(request, "a field of the body is wrong")
            return _invalid(_problems(error))
        except FieldError as error:
            _tell(request, error.problem)
            return _invalid([_problem(error.loc, error.problem, "model_mismatch")])
        except PredictionError as error:
            _tell(request, error)
            return JSONResponse({"detail": str(error)}, status_code=503)
        except Exception as error:
            fault = fault_of(error)
            _tell(request, fault.text)
            return JSONResponse({"detail": fault.text}, status_code=fault.http_status)
        return await _inline_or_thread(len(answer) <= _ON_LOOP_ANSWER_BYTES_MAX, _response, answer)

    app.include_router(router)
    _add_request_schema(app)


def _tell(request: Request, problem: object) -> None:
    request_log.failed(f"POST {PATH}", problem, peer=peer_address(request))


async def _inline_or_thread(inline: bool, function: Callable[..., T], *arguments: Any) -> T:
    return function(*arguments) if inline else await asyncio.to_thread(function, *arguments)


def _payload_of(body: bytes, shape_of_instances: Callable[[], Shape | None]) -> bytes:
    """The Request message that a JSON body stands for.

    Raises:
        ValidationError, FieldError: the body is wrong.
        PredictionError: no model is loaded, so that nobody knows what one takes.
    """
    predict_request = PredictRequest.model_validate_json(body)
    return predict_request.payload(shape_of_instances())


def _response(answer: bytes) -> Response:
    """The Response message as JSON; 503 when it has no predictions but an error."""
    probabilities, err_code, err_msg = parse_ctr_response(answer)
    if err_code:
        return JSONResponse({"detail": err_msg}, status_code=503)
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        text = f"instance {int(np.argmin(finite))}: the model's answer is no finite number"
        return JSONResponse({"detail": text}, status_code=503)
    content: dict[str, Any] = {
        "predictions": [{"prob0": prob0, "prob1": prob1} for prob0, prob1 in probabilities.tolist()]
    }
    if err_msg:
        content["message"] = err_msg
    return JSONResponse(content)


def _problems(error: ValidationError) -> list[dict[str, Any]]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [_problem(each["loc"], each["msg"], each["type"]) for each in found[:_MESSAGES_MAX]]


def _problem(loc: tuple[str | int, ...], text: str, kind: str) -> dict[str, Any]:
    return {"loc": ["body", *loc], "msg": text, "type": kind}


def _invalid(problems: list[dict[str, Any]]) -> Response:
    return JSONResponse({"detail": problems}, status_code=422)


def _ref_of(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF_TEMPLATE.format(model=model.__name__)}


def _add_request_schema(app: FastAPI) -> None:
    """Has /openapi.json tell the body, which FastAPI does not know: it is read here, within the
    limits of the wire and off the event loop when it is large."""
    generate = app.openapi
    _, request_schemas = models_json_schema(
        [(PredictRequest, "validation")], ref_template=_REF_TEMPLATE
    )

    def openapi() -> dict[str, Any]:
        schema = generate()
        schema["components"]["schemas"].update(request_schemas["$defs"])
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
