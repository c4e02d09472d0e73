"""Answers that wait for their peers to read them, over all connections of a port."""

from __future__ import annotations

from typing import Protocol


class Reader(Protocol):
    """A connection whose peer leaves answers unread."""

    @property
    def unread_bytes(self) -> int:
        """Bytes that wait for the peer."""

    def cut_off(self, reason: str) -> None:
        """Closes the connection and drops what waits."""


class UnreadAnswers:
    """Counts what waits, and names who is to go when it is too much.

    A count may be older than what its peer has read since, so it is never too low; all are taken
    anew before anyone has to go.
    """

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self._bytes_of: dict[Reader, int] = {}

    def update(self, reader: Reader) -> Reader | None:
        """Counts what waits for a peer now; returns the one with the most, and forgets it, when
        all together go over `bytes_max`."""
        self._count(reader)
        if self.bytes <= self.bytes_max:
            return None
        for each in self._bytes_of:
            self._count(each)
        if self.bytes <= self.bytes_max:
            return None
        most = max(self._bytes_of, key=self._bytes_of.__getitem__)
        self.forget(most)
        return most

    def forget(self, reader: Reader) -> None:
        """Nothing waits for this peer any more."""
        self.bytes -= self._bytes_of.pop(reader, 0)

    def _count(self, reader: Reader) -> None:
        unread_bytes = reader.unread_bytes
        self.bytes += unread_bytes - self._bytes_of.get(reader, 0)
        self._bytes_of[reader] = unread_bytes
