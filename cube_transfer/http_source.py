"""Downloads a pass from an http(s) directory that lists its files in `_manifest.json`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx

from cube_core._native import crc32c
from cube_core.errors import DeployError, LimitError
from cube_transfer.dense_manifest import DENSE_MANIFEST_NAME, parse_dense_manifest
from cube_transfer.local_source import digest, sync_and_close
from cube_transfer.manifest import MANIFEST_NAME, ManifestFile, check_file, parse_manifest

MANIFEST_BYTES_MAX = 16 << 20
_BLOCK_BYTES = 1 << 20
# Answers that pass by themselves; every other 4xx means that the pass is not there.
_TRY_AGAIN = frozenset({408, 425, 429})


async def pull_http(url: str, target: Path, http: httpx.AsyncClient) -> None:
    """Downloads the files that `<url>/_manifest.json` lists into `target`, each checked for size
    and crc32c; files that are there and right are kept.

    Raises:
        DeployError: the server says that a file is not there, or it is not what the manifest says.
        OSError, httpx.RequestError: the server cannot answer now, or `target` not be written.
    """
    manifest_url = f"{url.rstrip('/')}/{MANIFEST_NAME}"
    manifest = parse_manifest(await _fetch(manifest_url, http), manifest_url)
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    for file in manifest.files:
        await _download(url, target / file.name, http, file)


async def pull_http_dense(url: str, target: Path, http: httpx.AsyncClient) -> None:
    """Downloads a dense model: `manifest.json` and the files of the model it names.

    Raises:
        DeployError, ModelError: as `pull_http`; a manifest that cannot be used.
    """
    manifest_url = f"{url.rstrip('/')}/{DENSE_MANIFEST_NAME}"
    data = await _fetch(manifest_url, http)
    manifest = parse_dense_manifest(data, manifest_url)
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread((target / DENSE_MANIFEST_NAME).write_bytes, data)
    for file in manifest.files:
        await _download(url, target / file.name, http, file)
    if manifest.files:
        return
    await _download(url, target / f"{manifest.model}.pdiparams", http, None)
    try:
        await _download(url, target / f"{manifest.model}.json", http, None)
    except DeployError:
        await _download(url, target / f"{manifest.model}.pdmodel", http, None)


async def _fetch(url: str, http: httpx.AsyncClient) -> bytes:
    async with http.stream("GET", url) as response:
        _require_ok(response, url)
        data = bytearray()
        async for block in response.aiter_bytes():
            data += block
            if len(data) > MANIFEST_BYTES_MAX:
                raise LimitError(
                    f"{url}: more than MANIFEST_BYTES_MAX = {MANIFEST_BYTES_MAX} bytes"
                )
        return bytes(data)


async def _download(
    directory_url: str, target: Path, http: httpx.AsyncClient, expected: ManifestFile | None
) -> None:
    if expected is not None and await _is_there(target, expected):
        return
    url = f"{directory_url.rstrip('/')}/{quote(target.name)}"
    part = target.with_name(f".{target.name}.part")
    file = await asyncio.to_thread(part.open, "wb")
    try:
        async with http.stream("GET", url) as response:
            _require_ok(response, url)
            found = await _receive(response, file, target.name, expected)
        if expected is not None:
            check_file(found, expected, url)
        await asyncio.to_thread(sync_and_close, file)
        await asyncio.to_thread(part.replace, target)
    finally:
        file.close()
        await asyncio.to_thread(part.unlink, missing_ok=True)


async def _is_there(target: Path, expected: ManifestFile) -> bool:
    is_file = await asyncio.to_thread(target.is_file)
    return is_file and await digest(target) == expected


async def _receive(
    response: httpx.Response, file: BinaryIO, name: str, expected: ManifestFile | None
) -> ManifestFile:
    size = checksum = 0
    async for block in response.aiter_bytes(_BLOCK_BYTES):
        size += len(block)
        if expected is not None and size > expected.size:
            break
        checksum = await asyncio.to_thread(_write_block, file, block, checksum)
    return ManifestFile(name=name, size=size, crc32c=checksum)


def _write_block(file: BinaryIO, block: bytes, checksum: int) -> int:
    file.write(block)
    return crc32c(block, checksum)


def _require_ok(response: httpx.Response, url: str) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    text = f"{url}: HTTP {status} {response.reason_phrase}"
    if 400 <= status < 500 and status not in _TRY_AGAIN:
        raise DeployError(text)
    raise OSError(text)
