"""Peers that mean a shard server harm, as a process of its own.

    python -m benchmarks.hostile_peers --attack=slowloris --port=8001

Prints `attacking` once every connection has been opened, and goes on until it is ended. One that
the server closes is opened again a second later.
"""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated

import numpy as np
import typer

from cube_core._native import SeekPlan
from cube_core.command_line import run
from cube_core.wire.limits import WireLimits

_REOPEN_AFTER_S = 1.0
_READ_BYTES = 1 << 16
_FEW_KEYS = 26
_MANY_KEYS = 50_000


@dataclass(frozen=True)
class Attack:
    """What every connection of an attack does.

    Attributes:
        openings: what is sent first, one after the other in turn over the connections.
        drip: what is sent every `interval_s` after that, from what has been sent so far; b"" for
            nothing.
        half_closes: the share of connections that say after the opening that no more will come.
        reads: takes what the server answers.
    """

    connections: int
    openings: tuple[bytes, ...]
    drip: Callable[[int], bytes] = lambda _: b""
    interval_s: float = 0.1
    half_closes: float = 0.0
    reads: bool = True


@cache
def seek_frame(keys_num: int) -> bytes:
    """A seek of the keys below `keys_num`."""
    return SeekPlan(np.arange(keys_num, dtype=np.uint64), 1).frame(0, 1)


def _endless_frame_start() -> bytes:
    """The head and meta of a frame as large as the server takes."""
    frame = seek_frame(_FEW_KEYS)
    meta_bytes = struct.unpack_from(">I", frame, 8)[0]
    size = struct.pack(">II", WireLimits.frame_bytes_max, meta_bytes)
    return b"PRPC" + size + frame[12 : 12 + meta_bytes]


@cache
def _http_seek(keys_num: int) -> bytes:
    body = SeekPlan(np.arange(keys_num, dtype=np.uint64), 1).payload(0)
    head = "POST /DictService/seek HTTP/1.1\r\nhost: cube\r\ncontent-type: application/proto\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


_SEEK = seek_frame(_FEW_KEYS)
_HTTP = b"POST /DictService/seek HTTP/1.1\r\nx-slow: "


def _next_byte(sent: int) -> bytes:
    return _SEEK[sent % len(_SEEK) :][:1]


ATTACKS = {
    "half_open": Attack(300, (b"", b"PR", _SEEK[:20], b"GET /sta"), half_closes=0.25),
    "slowloris": Attack(200, (b"", _HTTP), _next_byte),
    "idle": Attack(1000, (_SEEK,)),
    "endless_frame": Attack(16, (_endless_frame_start(),), lambda _: b"\x08\x01" * 8192),
    # Whatever fits the buffers on the way is sent, over and over.
    "never_reads": Attack(8, (b"",), lambda _: seek_frame(10_000) * 64, reads=False),
    "never_reads_large": Attack(8, (b"",), lambda _: seek_frame(_MANY_KEYS) * 16, reads=False),
    "never_reads_http": Attack(8, (b"",), lambda _: _http_seek(_MANY_KEYS) * 4, reads=False),
}


@dataclass(eq=False)
class _Peer:
    """One connection, or the wait for it."""

    number: int
    connection: socket.socket | None = None
    open_at_s: float = 0.0
    drip_at_s: float = 0.0
    sent: int = 0
    unsent: bytes = field(default=b"", repr=False)


class Attackers:
    """All connections of an attack, in one thread."""

    def __init__(self, attack: Attack, port: int) -> None:
        self._attack = attack
        self._port = port
        self._selector = selectors.DefaultSelector()
        self._peers = [_Peer(number) for number in range(attack.connections)]
        self._openings = itertools.cycle(attack.openings)

    def run(self) -> Iterator[None]:
        """Yields when every connection has been opened once, then attacks for ever."""
        for peer in self._peers:
            self._open(peer)
        yield
        while True:
            for key, _ in self._selector.select(timeout=0.02):
                self._take(key.data)
            now_s = time.monotonic()
            for peer in self._peers:
                if peer.connection is None and now_s >= peer.open_at_s:
                    self._open(peer)
                elif peer.connection is not None and now_s >= peer.drip_at_s:
                    self._drip(peer, now_s)

    def _open(self, peer: _Peer) -> None:
        try:
            peer.connection = socket.create_connection(("127.0.0.1", self._port), timeout=5)
            peer.sent = 0
            peer.unsent = b""
            opening = next(self._openings)
            peer.connection.sendall(opening)
            if peer.number < self._attack.half_closes * self._attack.connections:
                peer.connection.shutdown(socket.SHUT_WR)
            peer.connection.setblocking(False)
            peer.drip_at_s = time.monotonic() + self._attack.interval_s
            if self._attack.reads:
                self._selector.register(peer.connection, selectors.EVENT_READ, peer)
        except OSError:
            self._lost(peer)

    def _take(self, peer: _Peer) -> None:
        try:
            if peer.connection is not None and not peer.connection.recv(_READ_BYTES):
                self._lost(peer)
        except BlockingIOError:
            pass
        except OSError:
            self._lost(peer)

    def _drip(self, peer: _Peer, now_s: float) -> None:
        peer.drip_at_s = now_s + self._attack.interval_s
        unsent = peer.unsent or self._attack.drip(peer.sent)
        if not unsent or peer.connection is None:
            return
        try:
            sent = peer.connection.send(unsent)
            peer.sent += sent
            peer.unsent = unsent[sent:]
        except BlockingIOError:
            peer.unsent = unsent
        except OSError:
            self._lost(peer)

    def _lost(self, peer: _Peer) -> None:
        if peer.connection is not None:
            if self._attack.reads and peer.connection.fileno() in self._selector.get_map():
                self._selector.unregister(peer.connection)
            peer.connection.close()
            peer.connection = None
        peer.open_at_s = time.monotonic() + _REOPEN_AFTER_S


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    attack: Annotated[str, typer.Option("--attack", help=f"One of {', '.join(ATTACKS)}.")],
    port: Annotated[int, typer.Option("--port", min=1, max=65_535)],
) -> None:
    """Attacks the shard server on a port of this machine until it is ended.

    Example: python -m benchmarks.hostile_peers --attack=idle --port=8001
    """
    if attack not in ATTACKS:
        raise typer.BadParameter(f"{attack!r} is none of {', '.join(ATTACKS)}")
    for _ in Attackers(ATTACKS[attack], port).run():
        print("attacking", flush=True)


if __name__ == "__main__":
    run(app)
