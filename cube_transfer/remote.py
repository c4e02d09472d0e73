"""Addresses of other machines' files, and what reads them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

import httpx
from pydantic import ValidationError

from cube_core.conf.transfer_conf import SCHEMES
from cube_core.errors import DeployError
from cube_core.file_list import ListedFile, PassFile, first_problem, require_places

_ARROW_SCHEMES = ("s3", "hdfs")
BLOCK_BYTES = 1 << 20
LISTED_FILES_MAX = 1 << 20
"""Files of a pass that has no manifest."""


class NotThereError(DeployError):
    """The source says that it has no such file."""


@dataclass(frozen=True)
class FileFacts:
    """What a source says of one of its files at present; None: it does not say."""

    identity: str = ""
    """Of two that are equal the bytes are too; "" when the source cannot tell."""
    size: int | None = None
    md5: str | None = None


@dataclass(frozen=True)
class RemoteFile:
    """A file to be downloaded, and its name in the pass."""

    url: str
    expected: ListedFile
    said_by: str = "the manifest"

    @property
    def name(self) -> str:
        return self.expected.name


class Sink(Protocol):
    """Takes the bytes of one file. Blocks on the disk."""

    @property
    def size(self) -> int:
        """Bytes it has already, from an earlier attempt."""

    @property
    def identity(self) -> str:
        """Of the file that those bytes are of; "" when something else will show whether they are
        right."""

    def begin(self, offset: int, facts: FileFacts) -> None:
        """The bytes that follow begin there: at `size`, or at 0 when they come anew.

        Raises:
            DeployError: they are not wanted: there are too many.
        """

    def write(self, block: bytes) -> None:
        """Raises what ends the reading: there are too many bytes, or they are not wanted any
        more."""


class RemoteFiles(Protocol):
    """Reads files of one kind of source."""

    async def fetch(self, url: str, sink: Sink) -> None:
        """Sends the bytes from `sink.size` on, or all when the source cannot, or has another file
        there by now.

        Raises:
            NotThereError: the source has no such file.
            DeployError: it will not give it.
            OSError, httpx.RequestError: it cannot at present.
        """

    async def facts(self, url: str) -> FileFacts:
        """What the source says of a file. Raises as `fetch`."""

    async def list(self, url: str) -> list[RemoteFile] | None:
        """All files below a directory, with their names relative to it, or the one file that `url`
        names; None when the source cannot tell. Raises as `fetch`."""


Allow = Callable[[str], None]
"""Raises DeployError for an address that may not be gone on to."""


def allow_all(url: str) -> None:
    """An `Allow` without limits."""


def remote_files(url: str, http: httpx.AsyncClient, allow: Allow = allow_all) -> RemoteFiles:
    """What reads `url`.

    Args:
        allow: asked about every address that the source leads on to.

    Raises:
        DeployError: an unknown scheme, or a library for it is not installed.
    """
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        from cube_transfer.http_files import HttpFiles

        return HttpFiles(http, allow)
    if scheme == "ftp":
        from cube_transfer.ftp_files import FtpFiles

        return FtpFiles()
    if scheme in _ARROW_SCHEMES:
        if importlib.util.find_spec("pyarrow") is None:
            raise DeployError(
                f"{shown(url)}: {scheme}:// needs pyarrow: pip install 'cube-serving[arrow]'"
            )
        from cube_transfer.arrow_files import ArrowFiles

        return ArrowFiles()
    known = ", ".join(f"{each}://" for each in SCHEMES)
    raise DeployError(
        f"{shown(url)}: {scheme}:// is not supported; give a local path or one of {known}"
    )


def scheme_of(location: str) -> str:
    """ "" for a local path."""
    scheme, separator, _ = location.partition("://")
    return scheme if separator else ""


def is_local(location: str) -> bool:
    return scheme_of(location) in ("", "file")


def local_path(location: str) -> Path:
    """Of a path, or an address of file://."""
    return Path(location.removeprefix("file://"))


def resume_offset(sink: Sink, facts: FileFacts) -> int:
    """Where to go on: where the sink ends, or at 0 when its bytes are of another file."""
    return sink.size if sink.identity in ("", facts.identity) else 0


def one_file(url: str, size: int | None) -> RemoteFile:
    """What `RemoteFiles.list` answers for a file."""
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    return RemoteFile(url, _listed(name, size, shown(url)), "the source")


def files_below(url: str, sizes: Iterable[tuple[str, int | None]]) -> list[RemoteFile]:
    """What `RemoteFiles.list` answers for a directory.

    Args:
        sizes: names relative to it, and bytes.

    Raises:
        DeployError: a name that cannot be taken, files that cannot be in one directory, or more
            than `LISTED_FILES_MAX`.
    """
    where = shown(url)
    listed: list[PassFile] = []
    for name, size in sizes:
        if len(listed) >= LISTED_FILES_MAX:
            raise DeployError(f"{where}: more than LISTED_FILES_MAX = {LISTED_FILES_MAX} files")
        listed.append(_listed(name, size, where))
    try:
        require_places(file.name for file in listed)
    except ValueError as error:
        raise DeployError(f"{where}: {error}") from error
    return [RemoteFile(child_url(url, file.name), file, "the source") for file in listed]


def _listed(name: str, size: int | None, where: str) -> PassFile:
    try:
        return PassFile(name=name, size=size)
    except ValidationError as error:
        raise DeployError(f"{where}: {name!r}: {first_problem(error)}") from error


def child_url(directory: str, name: str) -> str:
    """The address of a file in a directory; a query, which names the endpoint of s3, is kept."""
    parts = urlsplit(directory)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(name)}"))


def relative_url(base: str, location: str) -> str:
    """An address relative to that of a file, for every scheme."""
    parts = urlsplit(base)
    # urljoin knows relative addresses of a few schemes only, http one of them.
    joined = urlsplit(urljoin(f"http://host{parts.path}", location))
    query = parts.query if parts.scheme in _ARROW_SCHEMES else joined.query
    return urlunsplit(parts._replace(path=joined.path, query=query))


def shown(url: str) -> str:
    """The address without a password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
