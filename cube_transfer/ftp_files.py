"""Files behind ftp://. Credentials are those of the address, else of ~/.netrc, else anonymous."""

from __future__ import annotations

import asyncio
import contextlib
import ftplib
import netrc
from collections.abc import Iterator
from urllib.parse import unquote, urlsplit

from cube_core.errors import DeployError
from cube_core.file_list import ListedFile
from cube_transfer.remote import BLOCK_BYTES, NotThereError, Sink, shown

_TIMEOUT_S = 30.0


class FtpFiles:
    """A `RemoteFiles`."""

    async def fetch(self, url: str, sink: Sink) -> None:
        await asyncio.to_thread(_fetch, url, sink)

    async def list(self, url: str) -> list[ListedFile] | None:
        return await asyncio.to_thread(_list, url)


def _fetch(url: str, sink: Sink) -> None:
    with _connected(url) as (ftp, path):
        offset = sink.size
        try:
            sink.begin(offset)
            ftp.retrbinary(f"RETR {path}", sink.write, BLOCK_BYTES, offset or None)
        except ftplib.error_perm as error:
            if not offset or _code(error) == 550:
                raise
            # A server that does not resume.
            sink.begin(0)
            ftp.retrbinary(f"RETR {path}", sink.write, BLOCK_BYTES)


def _list(url: str) -> list[ListedFile]:
    with _connected(url) as (ftp, path):
        entries = [(name, facts) for name, facts in ftp.mlsd(path, ["type", "size"])]
        return [
            ListedFile(name=name, size=int(facts["size"]) if "size" in facts else None)
            for name, facts in entries
            if facts.get("type", "file") == "file"
        ]


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
            yield ftp, unquote(parts.path) or "/"
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
