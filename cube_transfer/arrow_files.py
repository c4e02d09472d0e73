"""Files behind s3:// and hdfs://, through file systems of pyarrow's kind.

Credentials are those of the environment: AWS_ACCESS_KEY_ID and the like, or Hadoop's configuration.
An endpoint other than Amazon's is in the address (`?endpoint_override=host:port&scheme=http`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from cube_core.errors import DeployError
from cube_core.filesystems import filesystem_of, first_line
from cube_transfer.remote import (
    BLOCK_BYTES,
    FileFacts,
    NotThereError,
    RemoteFile,
    Sink,
    files_below,
    one_file,
    resume_offset,
    shown,
)

# Of AWS's names for errors, those that say that the file is not for us.
_REFUSALS = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
)


class ArrowFiles:
    """A `RemoteFiles`."""

    async def fetch(self, url: str, sink: Sink) -> None:
        await asyncio.to_thread(_fetch, url, sink)

    async def facts(self, url: str) -> FileFacts:
        return await asyncio.to_thread(_facts_of, url)

    async def list(self, url: str) -> list[RemoteFile] | None:
        return await asyncio.to_thread(_list, url)


def _fetch(url: str, sink: Sink) -> None:
    filesystem, path = _open(url)
    with _errors_of(url):
        file = filesystem.open_input_file(path)
    with file:
        facts = _facts(filesystem, path, file, url)
        offset = resume_offset(sink, facts)
        if offset > file.size():
            offset = 0
        sink.begin(offset, facts)
        file.seek(offset)
        while block := _read(file, url):
            sink.write(block)
    # Its parts are asked for one after another, by name.
    if _facts_of(url) != facts:
        sink.begin(0, FileFacts())
        raise OSError(f"{shown(url)}: was replaced while it was read; it is read anew")


def _read(file: Any, url: str) -> bytes:
    with _errors_of(url):
        return bytes(file.read(4 * BLOCK_BYTES))


def _facts_of(url: str) -> FileFacts:
    filesystem, path = _open(url)
    with _errors_of(url):
        file = filesystem.open_input_file(path)
    with file:
        return _facts(filesystem, path, file, url)


def _facts(filesystem: Any, path: str, file: Any, url: str) -> FileFacts:
    """An ETag is not compared as MD5: of objects that KMS encrypts it is none, and which those are
    pyarrow does not tell."""
    size = file.size()
    with _errors_of(url):
        told = file.metadata() or {}
        (info,) = filesystem.get_file_info([path]) if "ETag" not in told else (None,)
    if info is None:
        return FileFacts(f"{_text(told['ETag'])} {size}", size)
    return FileFacts(f"{info.mtime_ns} {size}" if info.mtime_ns else "", size)


def _list(url: str) -> list[RemoteFile]:
    import pyarrow.fs

    filesystem, path = _open(url)
    path = path.rstrip("/")
    with _errors_of(url):
        (info,) = filesystem.get_file_info([path])
        if info.type == pyarrow.fs.FileType.File:
            return [one_file(url, info.size)]
        if info.type == pyarrow.fs.FileType.NotFound:
            raise NotThereError(f"{shown(url)}: no such directory")
        found = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    for info in found:
        if info.type == pyarrow.fs.FileType.Unknown:
            raise DeployError(f"{shown(url)}: {info.path} is no regular file")
    return files_below(
        url, ((_below(info.path, path), info.size) for info in found if info.is_file)
    )


def _below(path: str, directory: str) -> str:
    """Relative to the directory; file systems differ in whether paths begin with a slash."""
    return path.strip("/").removeprefix(directory.strip("/")).lstrip("/")


@contextlib.contextmanager
def _errors_of(url: str) -> Iterator[None]:
    """Errors of pyarrow become those of `RemoteFiles`."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotThereError(f"{shown(url)}: no such file") from error
    except OSError as error:
        is_refusal = any(name in str(error) for name in _REFUSALS)
        kind = DeployError if is_refusal or isinstance(error, PermissionError) else OSError
        raise kind(f"{shown(url)}: {first_line(error)}") from error


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _open(url: str) -> tuple[Any, str]:
    parts = urlsplit(url)
    root = urlunsplit(parts._replace(path="", fragment=""))
    try:
        filesystem, root_path = _filesystem(root)
    except (ImportError, ValueError) as error:
        raise DeployError(f"{shown(url)}: {error}") from error
    except OSError as error:
        raise OSError(f"{shown(url)}: {first_line(error)}") from error
    return filesystem, root_path + unquote(parts.path)


@functools.lru_cache(maxsize=16)
def _filesystem(root: str) -> tuple[Any, str]:
    return filesystem_of(root)
