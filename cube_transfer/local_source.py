"""Takes a pass out of a local directory, so that nobody can change it under the builder."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import BinaryIO

from cube_core.errors import DeployError
from cube_core.file_list import Digest, ListedFile, parse_file_list
from cube_core.pass_files import MANIFEST_NAME

# One block is one trip to a thread, so a cancelled pull ends within a block.
BLOCK_BYTES = 16 << 20
_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_NOT_READABLE = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR})


async def pull_local(source: Path, target: Path, *, link: bool) -> dict[str, os.stat_result]:
    """Puts the files of `source` (a directory, or one file) into the directory `target`.

    With a `_manifest.json` exactly the files it lists are taken, size and crc32c checked; without
    one, all but hidden and `_` files.

    Args:
        link: hard-link where the file system allows it (large files); else copy.

    Returns:
        each file as it was before its checksum was taken, so that a later change of it shows.

    Raises:
        DeployError: the input is missing, empty, or not what its manifest says.
        OSError: `target` cannot be written.
    """
    await asyncio.to_thread(target.mkdir, parents=True, exist_ok=True)
    taken: dict[str, os.stat_result] = {}
    for path, expected in await asyncio.to_thread(_listing, source):
        copy = target / path.name
        found = None
        copy.unlink(missing_ok=True)
        if not (link and await asyncio.to_thread(_link, path, copy)):
            found = await _copy(path, copy, expected)
        taken[path.name] = copy.stat()
        if expected is not None:
            problem = (found or await digest(copy, expected)).problem()
            if problem:
                raise DeployError(f"{path}: {problem}")
    return taken


def listed_files(data: bytes, where: str) -> tuple[ListedFile, ...]:
    """The files that a manifest names.

    Raises:
        DeployError: names `where`, the field, and what is wrong.
    """
    try:
        return parse_file_list(data)
    except ValueError as error:
        raise DeployError(f"{where}: {error}") from error


async def digest(path: Path, expected: ListedFile | None, copy: BinaryIO | None = None) -> Digest:
    """Size and checksums of a file, which is written to `copy` on the way."""
    found = Digest(expected)
    with await asyncio.to_thread(_open, path) as file:
        while await asyncio.to_thread(_digest_block, file, copy, found):
            pass
    return found


def sync_and_close(file: BinaryIO) -> None:
    """Makes what was written survive a power cut."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _listing(source: Path) -> list[tuple[Path, ListedFile | None]]:
    manifest_path = source / MANIFEST_NAME
    files: list[tuple[Path, ListedFile | None]]
    if source.is_file():
        return [(source, None)]
    if not source.is_dir():
        raise DeployError(f"{source}: no such directory; the donefile names it")
    if manifest_path.is_file():
        listed = listed_files(manifest_path.read_bytes(), str(manifest_path))
        files = [(source / file.name, file) for file in listed]
    else:
        paths = (path for path in sorted(source.iterdir()) if path.is_file())
        files = [(path, None) for path in paths if not path.name.startswith(("_", "."))]
    if not files:
        raise DeployError(f"{source}: holds no file")
    for path, _ in files:
        _require_inside(path, source)
    return files


def _require_inside(path: Path, source: Path) -> None:
    """A link must not bring in what is not the trainer's to give, nor a pipe hold up a build."""
    try:
        found = path.resolve(strict=True)
    except OSError as error:
        raise _named(error, path) from error
    if not found.is_relative_to(source.resolve()):
        raise DeployError(f"{path}: leads out of {source}, to {found}; only files in it are taken")
    if not found.is_file():
        raise DeployError(f"{path}: is no regular file")


async def _copy(path: Path, target: Path, expected: ListedFile | None) -> Digest:
    file = await asyncio.to_thread(target.open, "wb")
    try:
        return await digest(path, expected, file)
    finally:
        await asyncio.to_thread(sync_and_close, file)


def _link(path: Path, target: Path) -> bool:
    try:
        os.link(path.resolve(strict=True), target)
    except OSError as error:
        if error.errno in _NO_HARD_LINK:
            return False
        raise _named(error, path) from error
    return True


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> Exception:
    if error.errno in _NOT_READABLE:
        return DeployError(f"{path}: {error.strerror}")
    return error


def _digest_block(file: BinaryIO, copy: BinaryIO | None, found: Digest) -> bool:
    block = file.read(BLOCK_BYTES)
    if copy is not None:
        copy.write(block)
    found.update(block)
    return bool(block)
