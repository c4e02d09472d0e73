"""Commands of an operator, as HTTP: rollback, pause, resume, retry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict

from cube_core.access import Access, Right, audit
from cube_core.errors import AccessError, ControlError
from cube_core.wire.faults import fault_of
from cube_core.wire.http import asker_of
from cube_transfer.daemon import Daemon
from cube_transfer.state import PassRecord


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
    409 with the reason when the command cannot be done."""

    async def require_access(request: Request) -> AsyncIterator[None]:
        asker, name = asker_of(request), request.url.path.rpartition("/")[2]
        try:
            access.require(asker, Right.OPERATE, name)
        except AccessError as error:
            raise HTTPException(fault_of(error).http_status, str(error)) from error
        try:
            yield
        except HTTPException as error:
            audit(asker, name, f"failed: {error.detail}")
            raise
        audit(asker, name, "done")

    router = APIRouter(prefix="/control", dependencies=[Depends(require_access)])

    @router.post("/rollback")
    async def rollback(command: RollbackCommand) -> dict[str, Any]:
        try:
            return _answer(await daemon.rollback(command.version))
        except ControlError as error:
            raise HTTPException(409, str(error)) from error

    @router.post("/retry")
    async def retry(command: RetryCommand) -> dict[str, Any]:
        try:
            retry = await daemon.retry(command.id)
            return {**_answer(retry.record), "did": retry.did}
        except ControlError as error:
            raise HTTPException(409, str(error)) from error

    @router.post("/pause")
    async def pause() -> dict[str, Any]:
        await daemon.set_paused(True)
        return {"paused": True}

    @router.post("/resume")
    async def resume() -> dict[str, Any]:
        await daemon.set_paused(False)
        return {"paused": False}

    return router


def _answer(record: PassRecord) -> dict[str, Any]:
    return {"id": record.id, "version": record.version}
