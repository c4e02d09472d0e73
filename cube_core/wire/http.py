"""Services over HTTP, as brpc maps them: `POST /{service}/{method}`, JSON or raw protobuf."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Request, Response

from cube_core.access import Access, Asker, Right, is_forwarded, token_of
from cube_core.errors import AccessError, LimitError, WireError
from cube_core.request_log import request_log
from cube_core.wire.faults import fault_of, fault_text
from cube_core.wire.json_mapping import request_from_json, response_to_json
from cube_core.wire.limits import WireLimits
from cube_core.wire.service import Method, RpcContext, Service, ServiceTable

TIMEOUT_HEADER = "x-bd-timeout-ms"
"""How long the caller waits: brpc tells it in the frame or by `grpc-timeout`, and over HTTP not at
all. In the manner of brpc's own headers."""

_TIMEOUT_DIGITS_MAX = 10
_RAW_TYPES = ("application/proto", "application/x-protobuf")
_INLINE_JSON_BYTES_MAX = 2048
_NAME_CHARS_SHOWN = 100
_DEFAULT_LIMITS = WireLimits()


def service_router(
    services: Sequence[Service], *, limits: WireLimits = _DEFAULT_LIMITS
) -> APIRouter:
    """Routes for every method of `services`, by full and by short service name, and brpc's 404
    for every other `POST /{service}/{method}`: include it after your own routes."""
    router = APIRouter()
    table = ServiceTable(services)
    for service in services:
        for method in service.methods.values():
            for name in (service.full_name, service.name):
                router.add_api_route(
                    f"/{name}/{method.name}",
                    _endpoint(method, limits),
                    methods=["POST"],
                    name=f"{name}.{method.name}",
                    operation_id=f"{name}.{method.name}",
                    tags=[service.name],
                    response_class=Response,
                )

    @router.post("/{service}/{method}", include_in_schema=False)
    async def unknown(service: str, method: str, request: Request) -> Response:
        try:
            table.find(service, method)
        except Exception as error:
            return error_response(request, error)
        raise AssertionError(f"{service}.{method} has a route of its own")

    return router


def error_response(request: Request, error: Exception) -> Response:
    """The error as brpc answers it: status, `x-bd-error-code` and the text."""
    fault = fault_of(error)
    request_log.failed(f"POST {request.url.path}", fault.text, peer=peer_address(request))
    return Response(
        fault_text(server_address(request), fault),
        status_code=fault.http_status,
        headers={"x-bd-error-code": str(int(fault.code))},
        media_type="text/plain",
    )


async def read_body(request: Request, limits: WireLimits) -> bytes:
    """The whole body.

    Raises:
        LimitError: it is over `frame_bytes_max`.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > limits.frame_bytes_max:
            raise LimitError(f"the body is over frame_bytes_max={limits.frame_bytes_max}")
        pieces.append(piece)
    return b"".join(pieces)


def server_address(request: Request) -> str:
    """host:port that the request came to."""
    host, port = request.scope.get("server") or ("unknown", 0)
    return f"{host}:{port}"


def peer_address(request: Request) -> str:
    """host:port of the caller. Words come first where an address of this machine is not who really
    asks: a proxy, or who asks for a name in place of the address, which may be anybody's; and for
    a page of another site that a browser shows, wherever it runs."""
    peer = f"{request.client.host}:{request.client.port}" if request.client else "unknown"
    headers = request.headers
    page, hosts = headers.get("origin"), headers.getlist("host")
    if page is not None and not _is_own_page(page, *hosts[:1]):
        return f"page of {page[:_NAME_CHARS_SHOWN]} at {peer}"
    if not Asker(peer).is_local:
        return peer
    if is_forwarded(headers):
        return f"proxy at {peer}"
    here = server_address(request).rpartition(":")[0]
    if not all(_is_here(host, here) for host in hosts or [""]):
        return f"caller of {', '.join(hosts)[:_NAME_CHARS_SHOWN] or 'no host'} at {peer}"
    return peer


def _is_own_page(page: str, host: str = "") -> bool:
    """Whether the page that a browser names as `Origin` came from the host that it asks. A name can
    be made to lead here by whoever owns it, so only addresses and localhost count."""
    if page.partition("://")[2] != host:
        return False
    try:
        name = urlsplit(page).hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def deadline_of(request: Request) -> float | None:
    """`time.monotonic()` after which the caller does not wait any more, by `x-bd-timeout-ms`; None
    for ever, without it or with 0, as in a frame.

    Raises:
        WireError: it is no number of milliseconds.
    """
    told = request.headers.get(TIMEOUT_HEADER)
    if told is None:
        return None
    if not (told.isascii() and told.isdecimal() and len(told) <= _TIMEOUT_DIGITS_MAX):
        raise WireError(
            f"header {TIMEOUT_HEADER}: {told[:_TIMEOUT_DIGITS_MAX]!r} is not a number of ms"
        )
    return time.monotonic() + int(told) / 1000 if int(told) else None


def _is_here(host: str, listening: str) -> bool:
    """Whether a `Host` is this machine by its own address, and no name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in ("localhost", listening) or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def request_token(request: Request) -> str:
    """The token of the request; "" for none."""
    return token_of(request.headers.get("authorization", ""))


def asker_of(request: Request) -> Asker:
    """Who sends the request."""
    return Asker(peer_address(request), request_token(request))


def readers_only(access: Access) -> Any:
    """Dependency of routes that only look: open to all until a read token is set."""

    def require(request: Request) -> None:
        require_reader(access, request)

    return Depends(require)


def require_reader(access: Access, request: Request) -> None:
    """Lets the request look, or raises HTTPException: all may until a read token is set."""
    if not access.read_token:
        return
    try:
        access.require(asker_of(request), Right.READ, f"GET {request.url.path}")
    except AccessError as error:
        raise HTTPException(fault_of(error).http_status, str(error)) from error


def _endpoint(method: Method, limits: WireLimits) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            return await _answer(method, request, limits)
        except Exception as error:
            return error_response(request, error)

    return endpoint


async def _answer(method: Method, request: Request, limits: WireLimits) -> Response:
    context = RpcContext(
        peer_address(request), deadline_s=deadline_of(request), token=request_token(request)
    )
    body = await read_body(request, limits)
    content_type = request.headers.get("content-type", "application/json")
    if content_type.partition(";")[0].strip().lower() in _RAW_TYPES:
        return _response(await method.handler(body, context), content_type)
    payload = await _mapped(request_from_json, method.input_class, body)
    answer = await method.handler(payload, context)
    if "json" not in content_type:
        content_type = "application/json"
    return _response(await _mapped(response_to_json, method.output_class, answer), content_type)


def _response(body: bytes, content_type: str) -> Response:
    return Response(body, headers={"content-type": content_type})


async def _mapped(mapping: Callable[..., bytes], message_class: type, data: bytes) -> bytes:
    if len(data) <= _INLINE_JSON_BYTES_MAX:
        return mapping(message_class, data)
    return await asyncio.to_thread(mapping, message_class, data)
