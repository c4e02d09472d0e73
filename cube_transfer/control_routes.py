"""Commands of an operator, as HTTP: rollback, pause, resume, retry."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict

from cube_core.access import Access, Right, audit
from cube_core.errors import AccessError, ControlError
from cube_core.wire.faults import fault_of
from cube_core.wire.http import asker_of
from cube_transfer.daemon import Daemon
from cube_transfer.state import PassRecord

log = logging.getLogger(__name__)

_ARGUMENT_CHARS_SHOWN = 80


class RollbackCommand(BaseModel):
    """`version`: "" for the one that was served before."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    version: str = ""


class RetryCommand(BaseModel):
    """`id` of the pass: "" for the one under way, else the newest that failed, else the one that
    is served and not by all."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    id: str = ""


def control_router(daemon: Daemon, access: Access) -> APIRouter:
    """`POST /control/rollback`, `/retry`, `/pause`, `/resume`: 401 or 403 without the right token,
    409 with the reason when the command cannot be done, 500 with it when something breaks."""
    router = APIRouter(prefix="/control", route_class=_audited_by(access))

    @router.post("/rollback")
    async def rollback(command: RollbackCommand, request: Request) -> dict[str, Any]:
        request.state.argument = command.version
        return _answer(await daemon.rollback(command.version))

    @router.post("/retry")
    async def retry(command: RetryCommand, request: Request) -> dict[str, Any]:
        request.state.argument = command.id
        retry = await daemon.retry(command.id)
        return {**_answer(retry.record), "did": retry.did}

    @router.post("/pause")
    async def pause() -> dict[str, Any]:
        await daemon.set_paused(True)
        return {"paused": True}

    @router.post("/resume")
    async def resume() -> dict[str, Any]:
        await daemon.set_paused(False)
        return {"paused": False}

    return router


def _audited_by(access: Access) -> type[APIRoute]:
    """Routes for who has the right to operate, each call of which leaves one line in the audit log.
    A dependency would not see the bodies that are refused before it is asked."""

    class AuditedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def audited(request: Request) -> Response:
                asker, name = asker_of(request), self.path.rpartition("/")[2]
                try:
                    access.require(asker, Right.OPERATE, name)
                except AccessError as error:
                    raise HTTPException(fault_of(error).http_status, str(error)) from error
                try:
                    response = await handle(request)
                except BaseException as error:
                    audit(asker, _what(name, request), f"failed: {_reason(error)}")
                    answer = _answer_to(error, name)
                    if answer is None:
                        raise
                    raise answer from error
                audit(asker, _what(name, request), "done")
                return response

            return audited

    return AuditedRoute


def _what(name: str, request: Request) -> str:
    argument = getattr(request.state, "argument", "")
    return f"{name} {argument[:_ARGUMENT_CHARS_SHOWN]}" if argument else name


def _reason(error: BaseException) -> str:
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return str(error) or type(error).__name__


def _answer_to(error: BaseException, name: str) -> HTTPException | None:
    """None for what has an answer of its own, or needs none."""
    if isinstance(error, ControlError):
        return HTTPException(409, str(error))
    if isinstance(error, HTTPException | RequestValidationError):
        return None
    if not isinstance(error, Exception):
        return None
    log.error("%s failed", name, exc_info=error)
    return HTTPException(500, f"{name}: {type(error).__name__}: {error}")


def _answer(record: PassRecord) -> dict[str, Any]:
    return {"id": record.id, "version": record.version}
