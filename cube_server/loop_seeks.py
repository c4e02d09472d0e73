"""Which seeks are answered on the event loop itself: those that hold it for under a millisecond."""

from __future__ import annotations

from cube_core._native import Frame, Seeker

_LOOP_NS_MAX = 1_000_000
# Measured: a lookup, and copying a byte of a row that is in no cache.
_KEY_NS = 30.0
_VALUE_BYTE_NS = 0.25
_KEY_BYTES_MIN = 2


class LoopSeeks:
    """The fast path of a shard server: its seeker, with a limit that fits the width of its values.

    Attributes:
        payload_bytes_max: larger seeks are left to a thread.
    """

    def __init__(self, seeker: Seeker) -> None:
        self._seeker = seeker
        self.fit(1)

    def fit(self, value_bytes: int) -> None:
        """Sets the limit for tables whose widest values have that width."""
        keys_max = _LOOP_NS_MAX / (_KEY_NS + _VALUE_BYTE_NS * value_bytes)
        self.payload_bytes_max = int(keys_max) * _KEY_BYTES_MIN

    def serve(
        self, data: bytes | memoryview, payload_bytes_max: int, address: str = ""
    ) -> tuple[bytes, list[Frame], int, int]:
        """As `Seeker.serve`."""
        return self._seeker.serve(data, min(payload_bytes_max, self.payload_bytes_max), address)
