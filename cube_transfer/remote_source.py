"""Downloads a pass from another machine, several files at once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from cube_builder.input_names import input_names
from cube_core.errors import DeployError, ModelError
from cube_core.file_list import NAME_BYTES_MAX, ListedFile
from cube_core.pass_files import MANIFEST_NAME
from cube_transfer.dense_manifest import DENSE_MANIFEST_NAME, FLUID_PROGRAM, parse_dense_manifest
from cube_transfer.local_source import MANIFEST_BYTES_MAX, digest, listed_files
from cube_transfer.part_file import (
    BytesSink,
    PartFile,
    Provenance,
    part_path,
    provenance_path,
)
from cube_transfer.pass_bytes import PassBytes
from cube_transfer.remote import (
    Allow,
    NotThereError,
    RemoteFile,
    RemoteFiles,
    child_url,
    remote_files,
    shown,
)

DOWNLOADS_MAX = 4
"""Files of a pass that are downloaded at the same time."""


async def pull_remote(
    url: str, target: Path, http: httpx.AsyncClient, room: PassBytes, allow: Allow
) -> None:
    """Downloads the files that `<url>/_manifest.json` lists into `target`, each checked for size
    and checksum; without a manifest, what `url` has of input, where the source lists its
    directories, or the one file that it is.

    Files that are there and right are kept, and what an earlier attempt left of one is gone on
    with: as the checksums of the manifest tell, else when the source still has the same file.

    Raises:
        DeployError: the source says that a file is not there, or it is not what the manifest says,
            or there is more than `room` for.
        OSError, httpx.RequestError: the source cannot answer now, or `target` not be written.
    """
    source = remote_files(url, http, allow)
    files = await _listing(source, url)
    room.require_room_for((file.expected for file in files), shown(url))
    await asyncio.to_thread(_remove_others, target, files)
    await _download_all(source, files, target, room)
    await asyncio.to_thread(_forget_provenance, target, files)


async def pull_remote_dense(
    url: str, target: Path, http: httpx.AsyncClient, room: PassBytes, allow: Allow
) -> None:
    """Downloads a dense model: `manifest.json` and the files of the model it names.

    Raises:
        DeployError, ModelError: as `pull_remote`; a manifest that cannot be used.
    """
    source = remote_files(url, http, allow)
    manifest_url = child_url(url, DENSE_MANIFEST_NAME)
    data = await _read(source, manifest_url)
    manifest = parse_dense_manifest(data, shown(manifest_url))
    names = [file.name for file in manifest.files] or _names_of(manifest.model, manifest_url)
    listed = manifest.files or [ListedFile(name=name) for name in names]
    _require_short(listed, shown(manifest_url))
    files = [RemoteFile(child_url(url, file.name), file) for file in listed]
    room.require_room_for(listed, shown(url))
    await asyncio.to_thread(_remove_others, target, files)
    if manifest.files:
        await _download_all(source, files, target, room)
    else:
        await _download_model(source, files, target, room)
    await asyncio.to_thread(_forget_provenance, target, files)
    await asyncio.to_thread((target / DENSE_MANIFEST_NAME).write_bytes, data)


def _require_short(files: Sequence[ListedFile], where: str) -> None:
    """Raises ModelError when there can be no file beside one, for the time of its download."""
    for file in files:
        if len(file.name.encode()) > NAME_BYTES_MAX:
            raise ModelError(
                f"{where}: {file.name} is longer than NAME_BYTES_MAX = {NAME_BYTES_MAX} bytes"
            )


def _names_of(model: str, manifest_url: str) -> list[str]:
    """The files that a model may have when its manifest lists none: the last is the older form of
    the one before."""
    if model == FLUID_PROGRAM:
        where = shown(manifest_url)
        raise ModelError(f"{where}: files: must list what belongs to {FLUID_PROGRAM}")
    return [f"{model}.pdiparams", f"{model}.json", f"{model}.pdmodel"]


async def _download_model(
    source: RemoteFiles, files: Sequence[RemoteFile], target: Path, room: PassBytes
) -> None:
    parameters, program, older_program = files
    await _download(source, parameters, target, room)
    try:
        await _download(source, program, target, room)
    except NotThereError:
        (target / program.name).unlink(missing_ok=True)
        await _download(source, older_program, target, room)


async def _listing(source: RemoteFiles, url: str) -> Sequence[RemoteFile]:
    manifest_url = child_url(url, MANIFEST_NAME)
    try:
        data = await _read(source, manifest_url)
        listed = listed_files(data, shown(manifest_url))
        return [RemoteFile(child_url(url, file.name), file) for file in listed]
    except NotThereError as error:
        found = await source.list(url)
        if found is None:
            scheme = urlsplit(url).scheme
            raise DeployError(f"{error}; {scheme}:// lists no directories without one") from error
    wanted = set(input_names(file.name for file in found))
    files = [file for file in found if file.name in wanted]
    if not files:
        raise DeployError(f"{shown(url)}: holds no file")
    return files


def _remove_others(target: Path, files: Sequence[RemoteFile]) -> None:
    """Of another listing, by an earlier attempt: the builder takes what it finds."""
    target.mkdir(parents=True, exist_ok=True)
    places = [target / file.name for file in files]
    wanted = {*places, *map(part_path, places), *map(provenance_path, places)}
    for path in list(target.rglob("*")):
        if path.is_dir():
            if path in wanted:
                shutil.rmtree(path)
        elif path not in wanted:
            path.unlink(missing_ok=True)


def _forget_provenance(target: Path, files: Sequence[RemoteFile]) -> None:
    """Of a pass that is complete."""
    for file in files:
        provenance_path(target / file.name).unlink(missing_ok=True)


async def _read(source: RemoteFiles, url: str) -> bytes:
    sink = BytesSink(MANIFEST_BYTES_MAX, "MANIFEST_BYTES_MAX")
    await source.fetch(url, sink)
    return bytes(sink.data)


async def _download_all(
    source: RemoteFiles, files: Sequence[RemoteFile], target: Path, room: PassBytes
) -> None:
    """When one fails the others go on, so that each attempt brings what it can."""
    slots = asyncio.Semaphore(DOWNLOADS_MAX)

    async def run(file: RemoteFile) -> None:
        async with slots:
            await _download(source, file, target, room)

    results = await asyncio.gather(*(run(file) for file in files), return_exceptions=True)
    failures = [result for result in results if isinstance(result, BaseException)]
    # What will not pass by itself is told first.
    for failure in sorted(failures, key=lambda each: not isinstance(each, DeployError)):
        raise failure


async def _download(
    source: RemoteFiles, file: RemoteFile, directory: Path, room: PassBytes
) -> None:
    target = directory / file.name
    if await asyncio.to_thread(target.is_file) and await _is_right(source, file, target):
        room.add(target.stat().st_size, shown(file.url))
        return
    part = await asyncio.to_thread(PartFile, target, file, room)
    try:
        if not part.is_complete:
            await source.fetch(file.url, part)
        await asyncio.to_thread(part.finish)
    finally:
        await asyncio.to_thread(part.close)


async def _is_right(source: RemoteFiles, file: RemoteFile, target: Path) -> bool:
    """Whether what an earlier attempt put there is what the manifest says, else what the source
    still has."""
    if file.expected.has_checksum:
        return not (await digest(target, file.expected)).problem()
    known = await asyncio.to_thread(Provenance.read, target)
    if known is None or (await source.facts(file.url)).identity != known.identity:
        return False
    found = await digest(target, None)
    return (found.size, found.crc32c) == (known.size, known.crc32c)
