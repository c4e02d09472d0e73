"""Addresses of shard tables at the daemon, each signed for one table."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from cube_core.replace_file import sync_directory

FILES_PATH = "/files"
_KEY_NAME = "files_key"
_KEY_BYTES = 32


@dataclass(frozen=True)
class TableLinks:
    """Makes addresses, and knows its own again. Who is told one can fetch that table and no other.

    Attributes:
        base_url: of the daemon's port, "http://host:port".
        key: that the signatures are made with.
    """

    base_url: str
    key: bytes = field(repr=False)

    @classmethod
    def kept_in(cls, directory: Path, base_url: str) -> TableLinks:
        """With the key of a directory, where it is made when there is none, so that addresses
        stay the same when the daemon is started again.

        Raises:
            OSError: it cannot be read or written.
        """
        path = directory / _KEY_NAME
        with contextlib.suppress(FileNotFoundError):
            key = path.read_bytes()
            if len(key) == _KEY_BYTES:
                return cls(base_url, key)
        return cls(base_url, _new_key(path))

    def url(self, version: str, file: str) -> str:
        """Of a file of `<output_address>/<version>`."""
        signature = self._signature(version, file)
        return f"{self.base_url}{FILES_PATH}/{version}/{file}?signature={signature}"

    def is_signed(self, version: str, file: str, signature: str) -> bool:
        """Whether the signature is of this file's address. Takes the same time whatever it is."""
        return hmac.compare_digest(
            self._signature(version, file).encode(), signature.encode(errors="replace")
        )

    def _signature(self, version: str, file: str) -> str:
        return hmac.digest(self.key, f"{version}/{file}".encode(errors="replace"), "sha256").hex()


def _new_key(path: Path) -> bytes:
    """Writes a key that nobody else on the machine can read."""
    key = secrets.token_bytes(_KEY_BYTES)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_directory(path.parent)
    return key
