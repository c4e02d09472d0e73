"""Names for requests, from their callers or new ones, so that lines of several logs are found
together."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cube_core.log import set_request_id
from cube_core.request_log import request_log

HEADER = "x-request-id"
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")

_Message = MutableMapping[str, Any]
_Send = Callable[[_Message], Awaitable[None]]
_App = Callable[[_Message, Callable[[], Awaitable[_Message]], _Send], Awaitable[None]]


def request_id_of(offered: str) -> str:
    """What the caller offers where it can be taken, else a new name."""
    return offered if _NAME.fullmatch(offered) else secrets.token_hex(8)


class RequestIds:
    """ASGI middleware: `X-Request-Id` is taken and given back, and stands in the lines of the
    request; one that takes long has a line of its own."""

    def __init__(self, app: _App) -> None:
        self._app = app

    async def __call__(
        self, scope: _Message, receive: Callable[[], Awaitable[_Message]], send: _Send
    ) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_of(headers.get(HEADER.encode(), b"").decode("latin-1"))
        set_request_id(request_id)

        async def send_named(message: _Message) -> None:
            if message["type"] == "http.response.start":
                named = (HEADER.encode(), request_id.encode())
                message = {**message, "headers": [*message.get("headers", ()), named]}
            await send(message)

        begin_s = time.monotonic()
        await self._app(scope, receive, send_named)
        took_s = time.monotonic() - begin_s
        if took_s > request_log.slow_s:
            request_log.slow(f"{scope['method']} {scope['path']}", took_s)
