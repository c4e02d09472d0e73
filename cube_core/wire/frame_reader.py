"""Bytes of a connection, in pieces of any size, to whole baidu_std frames."""

from __future__ import annotations

from cube_core._native import Frame, parse_frames

FRAME_BYTES_MAX = 64 << 20
"""Largest body of a frame, as in brpc; a peer that announces a larger one is cut off."""

_HEADER_BYTES = 12


class FrameReader:
    """Collects what was received and cuts it into frames, joining a large frame's pieces once."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._needed_bytes = _HEADER_BYTES

    @property
    def missing_bytes(self) -> int:
        """Bytes that the frame under way still lacks (of its header, until that is there)."""
        return self._needed_bytes - self._held_bytes

    def feed(self, data: bytes) -> list[Frame]:
        """Takes the next bytes, returns the frames that they complete.

        Raises:
            WireError: the bytes are no baidu_std frame, or one over `frame_bytes_max`; the
                connection is of no use any more.
        """
        self._held_bytes += len(data)
        if self._pieces:
            self._pieces.append(data)
            if self._held_bytes < self._needed_bytes:
                return []
            data = b"".join(self._pieces)
            self._pieces.clear()
        frames, used_bytes, self._needed_bytes = parse_frames(data, self._frame_bytes_max)
        self._held_bytes -= used_bytes
        if self._held_bytes:
            self._pieces.append(data[used_bytes:] if used_bytes else data)
        return frames
