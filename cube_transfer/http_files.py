"""Files behind http(s)://, which go on where an earlier attempt ended."""

from __future__ import annotations

import asyncio

import httpx

from cube_core.errors import DeployError
from cube_core.file_list import ListedFile
from cube_transfer.remote import BLOCK_BYTES, NotThereError, Sink

# Answers that pass by themselves; every other 4xx means that the file is not to be had.
_TRY_AGAIN = frozenset({408, 425, 429})
_NOT_THERE = frozenset({404, 410})


class HttpFiles:
    """A `RemoteFiles`."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def fetch(self, url: str, sink: Sink) -> None:
        offset = sink.size
        headers = {"accept-encoding": "identity"}
        if offset:
            headers["range"] = f"bytes={offset}-"
        async with self._http.stream("GET", url, headers=headers) as response:
            if offset and response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                await asyncio.to_thread(sink.begin, 0)
                raise OSError(f"{url}: is shorter than what was read of it; it is read anew")
            _require_ok(response, url)
            resumes = response.headers.get("content-range", "").startswith(f"bytes {offset}-")
            await asyncio.to_thread(sink.begin, offset if resumes else 0)
            await _receive(response, sink)

    async def list(self, url: str) -> list[ListedFile] | None:
        return None


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
    text = f"{url}: HTTP {status} {response.reason_phrase}"
    if status in _NOT_THERE:
        raise NotThereError(text)
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        raise DeployError(text)
    raise OSError(text)
