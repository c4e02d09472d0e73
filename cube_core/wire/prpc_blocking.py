"""Client side of baidu_std without an event loop: one non-blocking socket, driven by its owner."""

from __future__ import annotations

import math
import os
import select
import socket
import ssl
import time
from typing import cast

from cube_core._native import Frame, encode_request_frame, next_correlation_id
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcTimeoutError, WireError
from cube_core.tls import ClientTls
from cube_core.wire.frame_reader import FRAME_BYTES_MAX, FrameReader
from cube_core.wire.prpc_channel import CONNECT_TIMEOUT_S, error_of

_RECEIVE_BYTES_MIN = 64 << 10
_RECEIVE_BYTES_MAX = 1 << 20
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class BlockingConnection:
    """One TCP connection to one endpoint; several requests may be in flight on it.

    `call` asks and waits. Who waits for several connections at once uses `send`, polls `fileno()`
    for `events` until `wait_limit_s`, and calls `advance` then. Begins to connect at once, without
    waiting for it. Not thread-safe. After any ConnectError it is closed for good.

    Raises:
        ConnectError: the host has no address, or refuses at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        frame_bytes_max: int = FRAME_BYTES_MAX,
        tls: ClientTls | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._connect_deadline_s = time.monotonic() + connect_timeout_s
        self._reader = FrameReader(frame_bytes_max)
        self._unsent: list[memoryview] = []
        self._connecting = True
        self._handshake_events = 0
        self._socket: socket.socket | None = None
        try:
            self._addresses = socket.getaddrinfo(
                endpoint.host, endpoint.port, type=socket.SOCK_STREAM
            )
        except (OSError, ValueError) as error:
            raise ConnectError(f"{endpoint}: no connection: {error}") from error
        self._connect_to_next_address("it has no address")

    @property
    def wait_limit_s(self) -> float:
        """On the monotonic clock: when the connection must be made; infinite once it is."""
        return self._connect_deadline_s if self._connecting else math.inf

    @property
    def events(self) -> int:
        """What to poll `fileno()` for."""
        if self._connecting:
            return self._handshake_events or select.POLLOUT
        return select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN

    def fileno(self) -> int:
        return self._open_socket().fileno()

    def send(self, frame: bytes) -> None:
        """Sends a request frame, as far as the socket takes it now.

        Raises:
            ConnectError: the connection is lost.
        """
        if self._connecting or self._unsent:
            self._unsent.append(memoryview(frame))
            return
        sent_bytes = self._send_some(frame)
        if sent_bytes < len(frame):
            self._unsent.append(memoryview(frame)[sent_bytes:])

    def advance(self) -> list[Frame]:
        """Does what the socket is ready for; returns the answers that are complete.

        Raises:
            ConnectError: no connection (in time), it was lost, or the peer sent what is no answer.
        """
        if self._connecting:
            self._finish_connecting()
            return []
        if self._unsent:
            self._flush()
        return self._receive()

    def is_stale(self) -> bool:
        """An idle connection has something to read: the peer closed it, or talks unasked."""
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def call(
        self,
        service: str,
        method: str,
        payload: bytes | memoryview,
        *,
        timeout_s: float,
        attachment: bytes | memoryview = b"",
        log_id: int = 0,
    ) -> Frame:
        """Calls a method and returns its response frame; answers to other requests are dropped.

        Raises:
            ConnectError: no connection, it was lost, or the peer sent what is no answer.
            RpcTimeoutError: no answer within `timeout_s`; the connection is closed.
            RpcError: the peer answered with an error; carries its code.
        """
        deadline_s = time.monotonic() + timeout_s
        correlation_id = next_correlation_id()
        self.send(
            encode_request_frame(
                service,
                method,
                correlation_id,
                payload,
                attachment=attachment,
                timeout_ms=max(1, round(timeout_s * 1000)),
                log_id=log_id,
            )
        )
        while True:
            for frame in self._advance_until(deadline_s, timeout_s):
                if frame.correlation_id == correlation_id:
                    if frame.error_code:
                        raise error_of(frame, self.endpoint, f"{service}.{method}")
                    return frame

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _advance_until(self, deadline_s: float, timeout_s: float) -> list[Frame]:
        poll = select.poll()
        poll.register(self.fileno(), self.events)
        now_s = time.monotonic()
        if now_s >= deadline_s:
            self.close()
            raise RpcTimeoutError(f"{self.endpoint}: no answer within {timeout_s * 1000:.0f} ms")
        poll.poll(max(0.0, min(deadline_s, self.wait_limit_s) - now_s) * 1000)
        return self.advance()

    def _open_socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectError(f"{self.endpoint}: the connection is closed")
        return self._socket

    def _connect_to_next_address(self, problem: str) -> None:
        while self._addresses:
            family, kind, protocol, _, address = self._addresses.pop(0)
            self.close()
            try:
                self._socket = socket.socket(family, kind, protocol)
                self._socket.setblocking(False)
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._socket.connect(address)
            except BlockingIOError:
                return
            except OSError as error:
                problem = error.strerror or str(error)
                continue
            return
        self.close()
        raise ConnectError(f"{self.endpoint}: no connection: {problem}")

    def _finish_connecting(self) -> None:
        error_number = self._open_socket().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error_number:
            self._handshake_events = 0
            self._connect_to_next_address(os.strerror(error_number))
        elif self._is_made():
            self._connecting = False
            self._flush()
        elif time.monotonic() >= self._connect_deadline_s:
            self.close()
            limit_ms = self._connect_timeout_s * 1000
            raise ConnectError(f"{self.endpoint}: no connection within {limit_ms:.0f} ms")

    def _is_made(self) -> bool:
        if self._tls is None:
            return self._is_writable()
        if self._handshake_events:
            return self._shake_hands()
        return self._is_writable() and self._begin_tls(self._tls)

    def _begin_tls(self, tls: ClientTls) -> bool:
        try:
            self._socket = tls.context().wrap_socket(
                self._open_socket(),
                server_hostname=tls.name_of(self.endpoint.host),
                do_handshake_on_connect=False,
            )
        except (OSError, ValueError) as error:
            # The peer has gone at this moment, or the name is none. The descriptor is held by the
            # error, which must not last.
            problem = str(error)
        else:
            return self._shake_hands()
        raise self._no_tls(problem)

    def _shake_hands(self) -> bool:
        """Whether the handshake is done; else `events` says what it waits for."""
        secured = cast(ssl.SSLSocket, self._open_socket())
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            self._handshake_events = select.POLLIN
        except ssl.SSLWantWriteError:
            self._handshake_events = select.POLLOUT
        except OSError as error:
            raise self._no_tls(str(error)) from error
        else:
            return True
        return False

    def _no_tls(self, problem: str) -> ConnectError:
        self.close()
        return ConnectError(f"{self.endpoint}: no TLS connection: {problem}")

    def _is_writable(self) -> bool:
        poll = select.poll()
        poll.register(self.fileno(), select.POLLOUT)
        return bool(poll.poll(0))

    def _flush(self) -> None:
        while self._unsent:
            piece = self._unsent[0]
            sent_bytes = self._send_some(piece)
            if sent_bytes < len(piece):
                self._unsent[0] = piece[sent_bytes:]
                return
            self._unsent.pop(0)

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            return self._open_socket().send(data)
        except _WOULD_BLOCK:
            return 0
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error

    def _receive(self) -> list[Frame]:
        try:
            data = self._received()
        except _WOULD_BLOCK:
            return []
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if not data:
            raise self._lost("it closed the connection")
        try:
            frames = self._reader.feed(data)
            if any(frame.is_request for frame in frames):
                raise WireError("a request instead of an answer")
        except WireError as error:
            self.close()
            raise ConnectError(f"{self.endpoint}: it sent what is no answer: {error}") from error
        return frames

    def _received(self) -> bytes:
        data = self._open_socket().recv(self._receive_bytes())
        if isinstance(self._socket, ssl.SSLSocket):
            # What is decrypted already does not wake a poll.
            while pending_bytes := self._socket.pending():
                data += self._socket.recv(pending_bytes)
        return data

    def _receive_bytes(self) -> int:
        return min(max(_RECEIVE_BYTES_MIN, self._reader.missing_bytes), _RECEIVE_BYTES_MAX)

    def _lost(self, reason: str) -> ConnectError:
        self.close()
        return ConnectError(f"{self.endpoint}: lost before the answer: {reason}")
