"""Takes a pass out of a local directory, so that nobody can change it under the builder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from cube_builder.input_names import input_names
from cube_core.errors import DeployError
from cube_core.file_list import Digest, ListedFile, PassFile, parse_file_list
from cube_core.pass_files import MANIFEST_NAME
from cube_transfer.input_roots import InputRoots
from cube_transfer.local_directory import LocalDirectory, errors_of
from cube_transfer.pass_bytes import PassBytes

MANIFEST_BYTES_MAX = 16 << 20
# One block is one trip to a thread, so a cancelled pull ends within a block.
BLOCK_BYTES = 16 << 20


async def pull_local(
    source: Path, target: Path, room: PassBytes, roots: InputRoots
) -> dict[str, os.stat_result]:
    """Puts the files of `source` (a directory, or one file) into the directory `target`: hard
    links where the file system allows them, else copies.

    With a `_manifest.json` exactly the files it lists are taken, size and crc32c checked; without
    one, all that is input, subdirectories included.

    Returns:
        each file as it was before its checksum was taken, so that a later change of it shows; by
        its name relative to `target`.

    Raises:
        DeployError: the input is missing, empty, outside `roots`, more than `room` is for, or not
            what its manifest says.
        OSError: `target` cannot be written.
    """
    directory = await asyncio.to_thread(_open, source, roots)
    files = await asyncio.to_thread(_listing, directory, source)
    return await _take(directory, files, target, room, link=True)


async def pull_local_dense(
    source: Path, target: Path, room: PassBytes, roots: InputRoots
) -> dict[str, os.stat_result]:
    """Copies the files of a dense model, which has no subdirectories.

    Returns, raises:
        as `pull_local`.
    """
    directory = await asyncio.to_thread(_open, source, roots)
    files = await asyncio.to_thread(_dense_listing, directory)
    return await _take(directory, files, target, room, link=False)


async def _take(
    directory: LocalDirectory,
    files: Sequence[ListedFile],
    target: Path,
    room: PassBytes,
    *,
    link: bool,
) -> dict[str, os.stat_result]:
    room.require_room_for(files, str(directory.path))
    taken: dict[str, os.stat_result] = {}
    for file in files:
        where = str(directory.path / file.name)
        copy = target / file.name
        await asyncio.to_thread(copy.parent.mkdir, parents=True, exist_ok=True)
        found = None
        if link and await asyncio.to_thread(directory.link, file.name, copy):
            room.add(copy.stat().st_size, where)
        else:
            found = await _copy(directory, file, copy, room)
        taken[file.name] = copy.stat()
        if file.size is not None or file.has_checksum:
            problem = (found or await digest(copy, file)).problem()
            if problem:
                raise DeployError(f"{where}: {problem}")
    return taken


def listed_files(data: bytes, where: str) -> tuple[PassFile, ...]:
    """The files that a manifest names.

    Raises:
        DeployError: names `where`, the field, and what is wrong.
    """
    try:
        return parse_file_list(data)
    except ValueError as error:
        raise DeployError(f"{where}: {error}") from error


async def digest(path: Path, expected: ListedFile | None) -> Digest:
    """Size and checksums of a file."""
    found = Digest(expected)
    with await asyncio.to_thread(path.open, "rb") as file:
        while await asyncio.to_thread(_read_block, file, found):
            pass
    return found


def _open(source: Path, roots: InputRoots) -> LocalDirectory:
    """The directory `source`, or that of the file."""
    roots.require_path(source)
    with errors_of(source):
        if not source.exists():
            raise DeployError(f"{source}: no such directory; the donefile names it")
        is_file = source.is_file()
    directory = LocalDirectory(source.parent if is_file else source)
    # Once more, of what is open now: a link may have been put in its place.
    roots.require_path(directory.real)
    return directory


def _listing(directory: LocalDirectory, source: Path) -> Sequence[ListedFile]:
    # Names that are in a directory lead nowhere else, whatever they look like.
    if source.is_file():
        return [ListedFile.model_construct(name=source.name)]
    if directory.has_file(MANIFEST_NAME):
        return _manifest(directory)
    names = input_names(directory.visible_names())
    if not names:
        raise DeployError(f"{directory.path}: holds no file")
    return [PassFile.model_construct(name=name) for name in names]


def _dense_listing(directory: LocalDirectory) -> Sequence[ListedFile]:
    if directory.has_file(MANIFEST_NAME):
        files = _manifest(directory)
        for file in files:
            if "/" in file.name:
                raise DeployError(f"{directory.path}/{file.name}: a model has no subdirectories")
        return files
    names = directory.top_files()
    if not names:
        raise DeployError(f"{directory.path}: holds no file")
    return [ListedFile.model_construct(name=name) for name in names]


def _manifest(directory: LocalDirectory) -> Sequence[ListedFile]:
    where = f"{directory.path}/{MANIFEST_NAME}"
    with directory.open(MANIFEST_NAME) as file:
        data = file.read(MANIFEST_BYTES_MAX + 1)
    if len(data) > MANIFEST_BYTES_MAX:
        raise DeployError(f"{where}: more than MANIFEST_BYTES_MAX = {MANIFEST_BYTES_MAX} bytes")
    return listed_files(data, where)


async def _copy(
    directory: LocalDirectory, file: ListedFile, target: Path, room: PassBytes
) -> Digest:
    found = Digest(file)
    where = str(directory.path / file.name)
    source = await asyncio.to_thread(directory.open, file.name)
    with source:
        copy = await asyncio.to_thread(target.open, "wb")
        try:
            while block := await asyncio.to_thread(_read_block, source, found):
                room.add(len(block), where)
                await asyncio.to_thread(copy.write, block)
        finally:
            await asyncio.to_thread(_sync_and_close, copy)
    return found


def _sync_and_close(file: BinaryIO) -> None:
    """Makes what was written survive a power cut."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _read_block(file: BinaryIO, found: Digest) -> bytes:
    block = file.read(BLOCK_BYTES)
    found.update(block)
    return block
