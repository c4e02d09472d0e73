"""Downloads a pass from another machine, several files at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx

from cube_core.errors import DeployError, ModelError
from cube_core.file_list import Digest, ListedFile
from cube_core.pass_files import MANIFEST_NAME
from cube_transfer.dense_manifest import DENSE_MANIFEST_NAME, FLUID_PROGRAM, parse_dense_manifest
from cube_transfer.local_source import digest, listed_files
from cube_transfer.part_file import BytesSink, PartFile
from cube_transfer.remote import NotThereError, RemoteFiles, child_url, remote_files, shown

MANIFEST_BYTES_MAX = 16 << 20
DOWNLOADS_MAX = 4
"""Files of a pass that are downloaded at the same time."""


async def pull_remote(url: str, target: Path, http: httpx.AsyncClient, bytes_max: int) -> None:
    """Downloads the files that `<url>/_manifest.json` lists into `target`, each checked for size
    and checksum. Files that are there and right are kept, and what an earlier attempt left of one
    is gone on with. Without a manifest, all but hidden and `_` files are taken, where the source
    lists its directories. No file may have more than `bytes_max` bytes.

    Raises:
        DeployError: the source says that a file is not there, or it is not what the manifest says.
        OSError, httpx.RequestError: the source cannot answer now, or `target` not be written.
    """
    source = remote_files(url, http)
    files = await _listing(source, url)
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    await _download_all(source, url, target, files, bytes_max)


async def pull_remote_dense(
    url: str, target: Path, http: httpx.AsyncClient, bytes_max: int
) -> None:
    """Downloads a dense model: `manifest.json` and the files of the model it names.

    Raises:
        DeployError, ModelError: as `pull_remote`; a manifest that cannot be used.
    """
    source = remote_files(url, http)
    manifest_url = child_url(url, DENSE_MANIFEST_NAME)
    data = await _read(source, manifest_url)
    manifest = parse_dense_manifest(data, shown(manifest_url))
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    await asyncio.to_thread((target / DENSE_MANIFEST_NAME).write_bytes, data)
    await _download_all(source, url, target, manifest.files, bytes_max)
    if manifest.files:
        return
    if manifest.model == FLUID_PROGRAM:
        raise ModelError(f"{shown(manifest_url)}: files: must list what belongs to {FLUID_PROGRAM}")
    await _download(source, url, target / f"{manifest.model}.pdiparams", None, bytes_max)
    try:
        await _download(source, url, target / f"{manifest.model}.json", None, bytes_max)
    except NotThereError:
        await _download(source, url, target / f"{manifest.model}.pdmodel", None, bytes_max)


async def _listing(source: RemoteFiles, url: str) -> Sequence[ListedFile]:
    manifest_url = child_url(url, MANIFEST_NAME)
    try:
        data = await _read(source, manifest_url)
        return listed_files(data, shown(manifest_url))
    except NotThereError:
        listed = await source.list(url)
        if listed is None:
            raise
    files = [file for file in listed if not file.name.startswith(("_", "."))]
    if not files:
        raise DeployError(f"{shown(url)}: holds no file")
    return files


async def _read(source: RemoteFiles, url: str) -> bytes:
    sink = BytesSink(MANIFEST_BYTES_MAX, "MANIFEST_BYTES_MAX")
    await source.fetch(url, sink)
    return bytes(sink.data)


async def _download_all(
    source: RemoteFiles,
    url: str,
    target: Path,
    files: Sequence[ListedFile],
    bytes_max: int,
) -> None:
    """When one fails the others go on, so that each attempt brings what it can."""
    slots = asyncio.Semaphore(DOWNLOADS_MAX)

    async def run(file: ListedFile) -> None:
        async with slots:
            await _download(source, url, target / file.name, file, bytes_max)

    results = await asyncio.gather(*(run(file) for file in files), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    # What will not pass by itself is told first.
    for failure in sorted(failures, key=lambda each: not isinstance(each, DeployError)):
        raise failure


async def _download(
    source: RemoteFiles,
    directory: str,
    target: Path,
    expected: ListedFile | None,
    bytes_max: int,
) -> None:
    if expected is not None and expected.has_checksum and await _is_there(target, expected):
        return
    url = child_url(directory, target.name)
    part = await asyncio.to_thread(PartFile, target, expected, shown(url), bytes_max)
    try:
        if not part.is_complete:
            await source.fetch(url, part)
        await asyncio.to_thread(part.finish)
    finally:
        await asyncio.to_thread(part.close)


async def _is_there(target: Path, expected: ListedFile) -> bool:
    if not await asyncio.to_thread(target.is_file):
        return False
    found: Digest = await digest(target, expected)
    return not found.problem()
