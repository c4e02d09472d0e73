"""TLS for every wire: contexts made from files, and made anew when the files change."""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from cube_core.errors import ConfError

log = logging.getLogger(__name__)

OUTLIVED_S = 600.0

_FileState = tuple[tuple[int, int, int, int], ...]
Made = TypeVar("Made")


@dataclass(frozen=True)
class TlsFiles:
    """The PEM files of one side.

    Attributes:
        cert_file: certificate of this side with its chain; "" for none, which only a client may.
        key_file: its private key, not encrypted; "" when `cert_file` holds it too.
        ca_file: certificates of those who may sign the other side's. A server asks its clients
            for certificates if and only if this is set (mutual TLS); a client without it trusts
            what the system trusts.
    """

    cert_file: str = ""
    key_file: str = ""
    ca_file: str = ""

    def state(self) -> _FileState:
        """What changes when a file is replaced or written, or others may read it."""
        paths = [Path(each) for each in (self.cert_file, self.key_file, self.ca_file) if each]
        stats = [path.stat() for path in paths]
        return tuple(
            (each.st_ino, each.st_mtime_ns, each.st_ctime_ns, each.st_size) for each in stats
        )

    def load(self, context: ssl.SSLContext) -> None:
        """Raises ConfError that names the file."""
        field, path = "cert_file", self.cert_file
        try:
            if self.cert_file:
                # Else a key that is encrypted would be asked for on the terminal.
                context.load_cert_chain(
                    self.cert_file, self.key_file or None, password=_no_password
                )
            field, path = "ca_file", self.ca_file
            if self.ca_file:
                context.load_verify_locations(self.ca_file)
        except _EncryptedKeyError as error:
            raise ConfError(self.key_file or self.cert_file, "", str(error)) from error
        except (OSError, ValueError) as error:
            if field == "cert_file" and self.key_file:
                path = f"{path} with key {self.key_file}"
            raise ConfError(path, "", f"cannot be used for TLS as {field}: {error}") from error


class _EncryptedKeyError(Exception):
    """The private key needs a password."""


def _no_password() -> str:
    raise _EncryptedKeyError("the private key is encrypted; give one without a password")


class _NewestContext:
    """A context of files, made anew when they were replaced. While they cannot be used, the one
    before them stays, and the log says so once. Thread-safe."""

    def __init__(self, files: TlsFiles, make: Callable[[], ssl.SSLContext]) -> None:
        self._files = files
        self._make = make
        self._lock = threading.Lock()
        self._state = _state_of(files)
        self._told = ""
        self._context = make()

    def get(self) -> ssl.SSLContext:
        with self._lock:
            try:
                state = _state_of(self._files)
                if state == self._state:
                    return self._context
                self._state = state
                self._context = self._make()
            except ConfError as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.error("the certificates before it stay in use: %s", error)
            else:
                self._told = ""
                log.info("%s is read anew", self._files.cert_file or self._files.ca_file)
            return self._context


class ServerTls:
    """TLS of a server's ports. Files that were replaced are read at the next handshake; while they
    cannot be used, the certificates before them stay and the log says so.

    Raises:
        ConfError: a file cannot be read or used, or there is no certificate.
    """

    def __init__(self, files: TlsFiles) -> None:
        if not files.cert_file:
            raise ConfError("command line", "--tls_cert_file", "a server needs a certificate")
        self.files = files
        self._newest = _NewestContext(files, self._make)
        # Listeners keep this one for good; every handshake is moved to the newest.
        self.context = self._make()
        self.context.sni_callback = self._choose

    @property
    def wants_client_certificates(self) -> bool:
        return bool(self.files.ca_file)

    def newest(self) -> ssl.SSLContext:
        """A context of the files as they are now. Thread-safe."""
        return self._newest.get()

    def _choose(
        self, handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        handshake.context = self.newest()

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Connections are kept, not resumed; a ticket would make an idle one look readable.
        context.num_tickets = 0
        self.files.load(context)
        if self.wants_client_certificates:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


class ClientTls:
    """TLS of the connections to a server. Files that were replaced are read at the next connection.

    Args:
        server_name: that the server's certificate must hold; "" for the host that is connected to.

    Raises:
        ConfError: a file cannot be read or used.
    """

    def __init__(self, files: TlsFiles, server_name: str = "") -> None:
        self.files = files
        self.server_name = server_name
        self._newest = _NewestContext(files, self._make)

    def context(self) -> ssl.SSLContext:
        """A context of the files as they are now; of those before while they cannot be used.
        Thread-safe."""
        return self._newest.get()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClientTls):
            return NotImplemented
        return (self.files, self.server_name) == (other.files, other.server_name)

    def __hash__(self) -> int:
        return hash((self.files, self.server_name))

    def name_of(self, host: str) -> str:
        """The name that the certificate of the server on `host` must hold."""
        return self.server_name or host

    def _make(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if not self.files.ca_file:
            context.load_default_certs()
        self.files.load(context)
        return context


class Renewed(Generic[Made]):
    """What keeps the TLS that it was made with, such as an HTTP client or a channel of gRPC; made
    anew when the files were replaced. Requests under way end on the one they began with.
    Thread-safe.

    Args:
        make: called at once, and whenever they were.
        tls: None: it is made once.
    """

    def __init__(self, make: Callable[[], Made], tls: ClientTls | None) -> None:
        self._make = make
        self._tls = tls
        self._lock = threading.Lock()
        self._context = tls.context() if tls else None
        self._made = make()
        self._replaced: list[tuple[float, Made]] = []

    def get(self) -> Made:
        """The newest."""
        if self._tls is None:
            return self._made
        context = self._tls.context()
        if context is not self._context:
            with self._lock:
                if context is not self._context:
                    self._renew(context)
        return self._made

    def _renew(self, context: ssl.SSLContext) -> None:
        try:
            made = self._make()
        except OSError:
            # Its files are being replaced again; the next call looks anew.
            return
        self._replaced.append((time.monotonic(), self._made))
        self._made, self._context = made, context

    def outlived(self) -> list[Made]:
        """Those that were replaced so long ago that nothing is under way on them; each once, for
        the caller to close."""
        if not self._replaced:
            return []
        with self._lock:
            before_s = time.monotonic() - OUTLIVED_S
            old = [made for since_s, made in self._replaced if since_s < before_s]
            self._replaced = [each for each in self._replaced if each[0] >= before_s]
            return old

    def all(self) -> list[Made]:
        """The newest, and those before it that were not handed out by `outlived`."""
        with self._lock:
            return [self._made, *(made for _, made in self._replaced)]


def _state_of(files: TlsFiles) -> _FileState:
    try:
        return files.state()
    except OSError as error:
        raise ConfError(str(error.filename), "", f"cannot be read: {error.strerror}") from error
