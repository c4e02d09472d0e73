"""The open connections of a port: counted, and drained when the server stops."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from cube_core.wire.unread import Reader, UnreadAnswers


class Drainable(Protocol):
    """A connection that can be asked to end."""

    def drain(self) -> None:
        """Takes no further request, and closes once those under way are answered."""


@dataclass
class WireCounters:
    """What a port has seen since it was opened."""

    connections_accepted: int = 0
    connections_refused: int = 0
    connections_idle: int = 0
    """Connections closed after idle_timeout_ms."""
    peers_cut_off: int = 0
    """Connections closed for what they sent, or did not send or read in time."""


class Connections:
    """Open connections by transport; the protocol that a transport speaks may be replaced."""

    def __init__(self, connections_max: int, unread_bytes_max: int = 1 << 30) -> None:
        self._connections_max = connections_max
        self._open: dict[asyncio.Transport, Drainable] = {}
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.counters = WireCounters()
        self.unread = UnreadAnswers(unread_bytes_max)
        self.partial_bytes = 0
        """Bytes of baidu_std frames that have not come whole, all connections together."""

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, transport: asyncio.Transport, connection: Drainable) -> bool:
        """Counts a new connection; False when `connections_max` are open already."""
        if len(self._open) >= self._connections_max or self._draining:
            self.counters.connections_refused += 1
            return False
        self.counters.connections_accepted += 1
        self.replace(transport, connection)
        return True

    def replace(self, transport: asyncio.Transport, connection: Drainable) -> None:
        """Says who speaks on `transport` from now on."""
        self._open[transport] = connection
        self._empty.clear()
        if self._draining:
            connection.drain()

    def bound_unread(self, reader: Reader) -> None:
        """Counts what waits for a peer, and cuts off the one with the most when all together go
        over `unread_bytes_max`."""
        most = self.unread.update(reader)
        if most is not None:
            limit = self.unread.bytes_max
            reason = f"unread_bytes_max={limit} bytes wait to be read, most of them by this peer"
            # Not at once: the transport may be in the midst of a write.
            asyncio.get_running_loop().call_soon(most.cut_off, reason)

    def remove(self, transport: asyncio.Transport) -> None:
        self._open.pop(transport, None)
        if not self._open:
            self._empty.set()

    async def drain(self, timeout_s: float) -> None:
        """Ends every connection once its requests are answered; after `timeout_s`, at once."""
        self._draining = True
        for connection in list(self._open.values()):
            connection.drain()
        try:
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        except asyncio.TimeoutError:
            for transport in list(self._open):
                transport.abort()
            self._open.clear()
