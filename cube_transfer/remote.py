"""Addresses of other machines' files, and what reads them."""

from __future__ import annotations

import importlib.util
from typing import Protocol
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import httpx

from cube_core.errors import DeployError
from cube_core.file_list import ListedFile

SCHEMES = ("http", "https", "ftp", "s3", "hdfs")
_ARROW_SCHEMES = ("s3", "hdfs")
BLOCK_BYTES = 1 << 20


class NotThereError(DeployError):
    """The source says that it has no such file."""


class Sink(Protocol):
    """Takes the bytes of one file. Blocks on the disk."""

    @property
    def size(self) -> int:
        """Bytes it has already, from an earlier attempt."""

    def begin(self, offset: int) -> None:
        """The bytes that follow begin there: at `size`, or at 0 when they come anew."""

    def write(self, block: bytes) -> None:
        """Raises what ends the reading: there are too many bytes, or they are not wanted any
        more."""


class RemoteFiles(Protocol):
    """Reads files of one kind of source."""

    async def fetch(self, url: str, sink: Sink) -> None:
        """Sends the bytes from `sink.size` on, or all when the source cannot.

        Raises:
            NotThereError: the source has no such file.
            DeployError: it will not give it.
            OSError, httpx.RequestError: it cannot at present.
        """

    async def list(self, url: str) -> list[ListedFile] | None:
        """Files of a directory; None when the source cannot tell. Raises as `fetch`."""


def remote_files(url: str, http: httpx.AsyncClient) -> RemoteFiles:
    """What reads `url`.

    Raises:
        DeployError: an unknown scheme, or a library for it is not installed.
    """
    scheme = scheme_of(url)
    if scheme in ("http", "https"):
        from cube_transfer.http_files import HttpFiles

        return HttpFiles(http)
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
