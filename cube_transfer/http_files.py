"""Files behind http(s)://, which go on where an earlier attempt ended."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncIterator

import httpx

from cube_core.errors import DeployError
from cube_transfer.remote import (
    BLOCK_BYTES,
    Allow,
    FileFacts,
    NotThereError,
    RemoteFile,
    Sink,
    allow_all,
    one_file,
    resume_offset,
    shown,
)

REDIRECTS_MAX = 10
"""Addresses that one request is led on to."""
# Answers that pass by themselves; every other 4xx means that the file is not to be had.
_TRY_AGAIN = frozenset({408, 425, 429})
_NOT_THERE = frozenset({404, 410})
_NO_HEAD = frozenset({400, 401, 403, 405, 501})
_MD5_BYTES = 16


class HttpFiles:
    """A `RemoteFiles`.

    Args:
        allow: asked about every address that a redirect names.
    """

    def __init__(self, http: httpx.AsyncClient, allow: Allow = allow_all) -> None:
        self._http = http
        self._allow = allow

    async def fetch(self, url: str, sink: Sink) -> None:
        offset = sink.size
        headers = {}
        if offset:
            headers["range"] = f"bytes={offset}-"
        if offset and sink.identity:
            headers["if-range"] = _validator(sink.identity)
        async with self._answer("GET", url, headers) as response:
            if offset and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                await asyncio.to_thread(sink.begin, 0, FileFacts())
                raise OSError(f"{shown(url)}: is shorter than what was read of it; it is read anew")
            _require_ok(response, url)
            facts = _facts(response)
            if "if-range" in headers and not facts.identity:
                # An answer to If-Range need not repeat what it was asked for.
                facts = FileFacts(f"{headers['if-range']} {facts.size}", facts.size)
            if response.headers.get("content-range", "").startswith(f"bytes {offset}-"):
                if resume_offset(sink, facts) != offset:
                    await asyncio.to_thread(sink.begin, 0, FileFacts())
                    raise OSError(f"{shown(url)}: is another file than before; it is read anew")
            else:
                offset = 0
            await asyncio.to_thread(sink.begin, offset, facts)
            await _receive(response, sink)

    async def facts(self, url: str) -> FileFacts:
        async with self._answer("HEAD", url) as response:
            if response.status_code in _NO_HEAD:
                # Some give files that they do not talk about; GET will tell.
                return FileFacts()
            _require_ok(response, url)
            return _facts(response)

    async def list(self, url: str) -> list[RemoteFile] | None:
        """A file shows that it is none of the pages that stand for directories."""
        async with self._answer("HEAD", url) as response:
            if response.status_code in _NOT_THERE:
                return None
            _require_ok(response, url)
            is_page = response.headers.get("content-type", "").startswith("text/html")
            if is_page or url.endswith("/") or response.url.path.endswith("/"):
                return None
            return [one_file(url, _facts(response).size)]

    @contextlib.asynccontextmanager
    async def _answer(
        self, method: str, url: str, headers: dict[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The answer that redirects lead to, with its body still to come."""
        headers = {"accept-encoding": "identity", **(headers or {})}
        target = httpx.URL(url)
        for _ in range(REDIRECTS_MAX + 1):
            request = self._http.stream(method, target, headers=headers, follow_redirects=False)
            async with request as response:
                if not response.has_redirect_location:
                    yield response
                    return
                target = target.join(response.headers["location"])
            if target.scheme not in ("http", "https"):
                where = f"{shown(url)}: leads to {shown(str(target))}"
                raise DeployError(f"{where}, which is not http(s)://")
            self._allow(str(target))
        raise DeployError(f"{shown(url)}: leads on more than REDIRECTS_MAX = {REDIRECTS_MAX} times")


def _facts(response: httpx.Response) -> FileFacts:
    """The identity is `<validator> <bytes>`."""
    headers = response.headers
    _, _, total = headers.get("content-range", "").rpartition("/")
    size_text = total or headers.get("content-length", "")
    size = int(size_text) if size_text.isdecimal() else None
    etag = headers.get("etag", "")
    # A weak ETag is that of other bytes, too.
    validator = etag if etag.startswith('"') else headers.get("last-modified", "")
    identity = f"{validator} {size}" if validator and size is not None else ""
    is_whole = response.status_code == httpx.codes.OK
    return FileFacts(identity, size, _md5(headers.get("content-md5", "")) if is_whole else None)


def _validator(identity: str) -> str:
    """What If-Range is to compare."""
    return identity.rpartition(" ")[0]


def _md5(text: str) -> str | None:
    """Of Content-MD5, in hexadecimal."""
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest.hex() if len(digest) == _MD5_BYTES else None


async def _receive(response: httpx.Response, sink: Sink) -> None:
    """In blocks that are worth a trip to a thread; what came before a cut is not lost."""
    block = bytearray()
    try:
        async for piece in response.aiter_raw():
            block += piece
            if len(block) >= BLOCK_BYTES:
                await asyncio.to_thread(sink.write, bytes(block))
                block.clear()
    except httpx.RequestError:
        await asyncio.to_thread(sink.write, bytes(block))
        raise
    await asyncio.to_thread(sink.write, bytes(block))


def _require_ok(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
        return
    text = f"{shown(url)}: HTTP {status} {response.reason_phrase}"
    if status in _NOT_THERE:
        raise NotThereError(text)
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        raise DeployError(text)
    raise OSError(text)
