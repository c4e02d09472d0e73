"""Requests of one method taken together as they come, without a task for each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from cube_core._native import Frame


class Caller(Protocol):
    """The connection that requests came on.

    Attributes:
        peer: address of the caller, "host:port".
    """

    peer: str

    @property
    def is_open(self) -> bool:
        """False when nobody is there any more to read an answer."""

    def answer(self, frames: bytes, requests: int) -> None:
        """Sends the frames that answer so many requests; each is answered once."""

    def error_frame(self, correlation_id: int, error: Exception) -> bytes:
        """The frame that tells an error."""


class BatchPath(Protocol):
    """Who takes them."""

    def take(
        self, data: bytes | memoryview, requests_max: int, caller: Caller
    ) -> tuple[Sequence[Frame], int, int, int]:
        """Takes at most `requests_max`, at least 1, of the requests at the start of `data`;
        `caller` gets the answers later, never before this returned.

        Returns:
            frames it does not take, how many requests it took, bytes of both, and bytes needed
            from there for the next frame.

        Raises:
            WireError: `data` does not start with a frame.
        """
