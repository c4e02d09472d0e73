"""Certificates made on the spot."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme

from cube_core.tls import TlsFiles


class Authority:
    """A certificate authority that writes what it signs as PEM files into `directory`."""

    def __init__(self, directory: Path, name: str) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self._name = name
        self.ca_file = str(directory / f"{name}-ca.pem")
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(
        self, host: str = "127.0.0.1", *, expired: bool = False, trusts: str = ""
    ) -> TlsFiles:
        """Files of one side.

        Args:
            trusts: the `ca_file` that goes with them; "" for none.
        """
        now = datetime.now(timezone.utc)
        certificate = self._ca.issue_cert(
            host,
            not_before=now - timedelta(days=3),
            not_after=now + timedelta(days=-1 if expired else 1),
        )
        stem = self._directory / f"{self._name}-{host}-{'expired' if expired else 'valid'}"
        cert_file, key_file = f"{stem}.pem", f"{stem}.key"
        Path(cert_file).write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
        certificate.private_key_pem.write_to_path(key_file)
        return TlsFiles(cert_file, key_file, trusts)


@dataclass(frozen=True)
class Side:
    """Files of one side, which are replaced in place."""

    files: TlsFiles

    @classmethod
    def of(cls, directory: Path, authority: Authority) -> Side:
        directory.mkdir()
        names = (str(directory / name) for name in ("cert.pem", "key.pem", "ca.pem"))
        side = cls(TlsFiles(*names))
        side.show(authority)
        side.trust(authority)
        return side

    def show(self, authority: Authority) -> None:
        """Replaces certificate and key."""
        issued = authority.issue()
        shutil.copy(issued.key_file, self.files.key_file)
        shutil.copy(issued.cert_file, self.files.cert_file)

    def trust(self, authority: Authority) -> None:
        """Replaces who signs the certificates of the other side."""
        shutil.copy(authority.ca_file, self.files.ca_file)


def flags(files: TlsFiles) -> list[str]:
    """The files as flags of a role."""
    return [
        f"--tls_cert_file={files.cert_file}",
        f"--tls_key_file={files.key_file}",
        *([f"--tls_ca_file={files.ca_file}"] if files.ca_file else []),
    ]
