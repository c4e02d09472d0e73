"""Files behind ftp://. Credentials are those of the address, else of ~/.netrc, else anonymous."""

from __future__ import annotations

import asyncio
import contextlib
import ftplib
import netrc
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from cube_builder.input_names import is_visible
from cube_core.errors import DeployError
from cube_transfer.local_directory import DIRECTORY_DEPTH_MAX
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

_TIMEOUT_S = 30.0
_NOT_IMPLEMENTED = (500, 502)
_LISTED_DIRECTORIES = ("cdir", "pdir")
"""The directory itself, and the one above it."""


class FtpFiles:
    """A `RemoteFiles`."""

    async def fetch(self, url: str, sink: Sink) -> None:
        await asyncio.to_thread(_fetch, url, sink)

    async def facts(self, url: str) -> FileFacts:
        return await asyncio.to_thread(_facts_of, url)

    async def list(self, url: str) -> list[RemoteFile] | None:
        return await asyncio.to_thread(_list, url)


def _fetch(url: str, sink: Sink) -> None:
    with _connected(url) as (ftp, path):
        facts = _facts(ftp, path)
        offset = resume_offset(sink, facts)
        try:
            sink.begin(offset, facts)
            ftp.retrbinary(f"RETR {path}", sink.write, BLOCK_BYTES, offset or None)
        except ftplib.error_perm as error:
            if not offset or _code(error) == 550:
                raise
            # A server that does not resume.
            sink.begin(0, facts)
            ftp.retrbinary(f"RETR {path}", sink.write, BLOCK_BYTES)
        if _facts(ftp, path) != facts:
            sink.begin(0, FileFacts())
            raise OSError("was replaced while it was read; it is read anew")


def _facts_of(url: str) -> FileFacts:
    with _connected(url) as (ftp, path):
        return _facts(ftp, path)


def _facts(ftp: ftplib.FTP, path: str) -> FileFacts:
    """Bytes and time; a server that does not tell both tells nothing that helps."""
    try:
        # Of a text, which is the other type, servers do not tell the size.
        ftp.voidcmd("TYPE I")
        size = ftp.size(path)
        changed = ftp.sendcmd(f"MDTM {path}")
    except ftplib.error_perm:
        return FileFacts()
    return FileFacts(f"{changed} {size}", size)


def _list(url: str) -> list[RemoteFile]:
    with _connected(url) as (ftp, path):
        try:
            return files_below(url, _walk(ftp, path, shown(url)))
        except ftplib.error_perm as error:
            size = _facts(ftp, path).size
            if size is not None:
                return [one_file(url, size)]
            if _code(error) in _NOT_IMPLEMENTED:
                raise DeployError(
                    f"{shown(url)}: {error}: the server does not list directories (MLSD); the pass "
                    "needs a _manifest.json"
                ) from error
            raise


def _walk(ftp: ftplib.FTP, root: str, where: str) -> Iterator[tuple[str, int | None]]:
    """The visible files below a directory, with their names relative to it and their bytes."""
    pending = [""]
    while pending:
        prefix = pending.pop()
        for name, facts in list(ftp.mlsd(f"{root.rstrip('/')}/{prefix}", ["type", "size"])):
            kind = facts.get("type", "file").lower()
            if kind in _LISTED_DIRECTORIES or not is_visible(name):
                continue
            if kind not in ("file", "dir"):
                raise DeployError(f"{where}/{prefix}{name}: is no regular file, but {kind}")
            if kind == "file":
                yield prefix + name, int(facts["size"]) if "size" in facts else None
            elif prefix.count("/") < DIRECTORY_DEPTH_MAX:
                pending.append(f"{prefix}{name}/")
            else:
                raise DeployError(
                    f"{where}/{prefix}{name}: below DIRECTORY_DEPTH_MAX = {DIRECTORY_DEPTH_MAX} "
                    "directories"
                )


@contextlib.contextmanager
def _connected(url: str) -> Iterator[tuple[ftplib.FTP, str]]:
    """A session, and the path of `url` in it; its errors become those of `RemoteFiles`."""
    parts = urlsplit(url)
    where = shown(url)
    try:
        user, password = _credentials(url)
        with ftplib.FTP(timeout=_TIMEOUT_S) as ftp:  # noqa: S321  an address the site gives
            ftp.connect(parts.hostname or "", parts.port or ftplib.FTP_PORT)
            ftp.login(user, password)
            try:
                yield ftp, unquote(parts.path) or "/"
            except BaseException:
                # Without QUIT, which would be answered by what the server says of a transfer that
                # was broken off, in the place of why it was.
                ftp.close()
                raise
    except ftplib.error_perm as error:
        kind = NotThereError if _code(error) == 550 else DeployError
        raise kind(f"{where}: {error}") from error
    except ValueError as error:
        raise DeployError(f"{where}: {error}") from error
    except (ftplib.Error, EOFError, OSError) as error:
        raise OSError(f"{where}: {error or type(error).__name__}") from error


def _credentials(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    if parts.username:
        return unquote(parts.username), unquote(parts.password or "")
    try:
        found = netrc.netrc().authenticators(parts.hostname or "")
    except (OSError, netrc.NetrcParseError):
        found = None
    return (found[0], found[2] or "") if found else ("", "")


def _code(error: ftplib.Error) -> int:
    text = str(error)[:3]
    return int(text) if text.isdecimal() else 0
