"""Transports of TLS connections that tell when their peer reads nothing.

uvloop hands what was encrypted in one write to the socket's transport, and counts it no more; only
what is written after that waits where it is counted. So long writes are cut into pieces.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

PIECE_BYTES = 64 << 10


class _PiecewiseTransport:
    """A transport, but for how it writes."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=PIECE_BYTES)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if len(data) <= PIECE_BYTES:
            self._transport.write(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), PIECE_BYTES):
            if self._transport.is_closing():
                return
            self._transport.write(view[start : start + PIECE_BYTES])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def counting(transport: asyncio.Transport) -> asyncio.Transport:
    """The transport, in such a shape that `get_write_buffer_size` counts all but some 128 KiB of
    what waits for the peer, and `pause_writing` is called in time."""
    if transport.get_extra_info("sslcontext") is None:
        return transport
    return cast(asyncio.Transport, _PiecewiseTransport(transport))
