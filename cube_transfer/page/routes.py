"""The page over HTTP: its files, and its events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from cube_core.access import Access
from cube_core.errors import LimitError
from cube_core.wire.http import asker_of, readers_only
from cube_transfer.page.listeners import Listeners, event_frame

log = logging.getLogger(__name__)

_SEND_TIMEOUT_S = 30.0
_RETRY_AFTER_S = 10
_TYPES = {
    "page.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "show.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing from elsewhere, nothing inline, no text that becomes markup.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def page_router(listeners: Listeners, access: Access) -> APIRouter:
    """`GET /` and `/page/…`, which hold nothing of this daemon and so are for everybody, and
    `/events`, which needs the read token where one is set."""
    router = APIRouter()
    texts = {name: (files(__package__) / "static" / name).read_bytes() for name in _TYPES}

    @router.get("/")
    async def page() -> Response:
        return _file("page.html")

    @router.get("/page/{name}")
    async def part(name: str) -> Response:
        if name not in texts:
            raise HTTPException(404, "no such file of the page")
        return _file(name)

    def _file(name: str) -> Response:
        return Response(texts[name], headers={**_HEADERS, "content-type": _TYPES[name]})

    @router.get("/events", dependencies=[readers_only(access)])
    async def events(request: Request) -> Response:
        try:
            listeners.admit()
        except LimitError as error:
            headers = {"retry-after": str(_RETRY_AFTER_S)}
            raise HTTPException(503, str(error), headers) from error
        right = access.right_of(asker_of(request)).name.lower()
        return _EventStream(listeners, {"right": right})

    return router


class _EventStream(StreamingResponse):
    """Events for one listener, who has to take them within a time."""

    def __init__(self, listeners: Listeners, hello: dict[str, Any]) -> None:
        first = event_frame("hello", json.dumps(hello).encode())
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(listeners.stream(first), headers=headers, media_type="text/event-stream")
        self._listeners = listeners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, _timely(send))
        except asyncio.TimeoutError:
            log.info("a page takes no events any more; its stream is ended")
        finally:
            self._listeners.leave()


def _timely(send: Send) -> Callable[[Message], Awaitable[None]]:
    async def timely(message: Message) -> None:
        await asyncio.wait_for(send(message), _SEND_TIMEOUT_S)

    return timely
