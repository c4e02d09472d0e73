"""Predictions asked over baidu_std, from frames to the queue without a task for each."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ctr_serving.batches import Batches
from ctr_serving.counters import Counters
from ctr_serving.jobs import FramesJob
from ctr_serving.model_slot import ModelSlot
from cube_core._native import Frame, parse_frames, take_ctr_frames
from cube_core.wire.batch_path import Caller
from cube_core.wire.limits import WireLimits

PAYLOAD_BYTES_MAX = 64 << 10
"""Larger requests are parsed by the op, in a thread."""

ROWS_MAX = 256
"""Rows taken together, unless the batches are smaller."""


class FramePath:
    """Takes plain requests for `inference` as they come on a connection.

    What is no such request, or not a good one, or too much, it leaves to the service, which tells
    what is wrong with it.

    Args:
        batch_rows_max: rows that are run together; 0: each request by itself.
        rows_per_request_max: larger requests are left to the service.
        requests_pending_max: with so many under way all are left to the service.
    """

    def __init__(
        self,
        slot: ModelSlot,
        batches: Batches,
        counters: Counters,
        limits: WireLimits,
        *,
        batch_rows_max: int,
        rows_per_request_max: int,
        requests_pending_max: int,
    ) -> None:
        self._slot = slot
        self._batches = batches
        self._counters = counters
        self._frame_bytes_max = limits.frame_bytes_max
        self._requests_max = requests_pending_max if batch_rows_max else 1
        self._rows_max = min(batch_rows_max or ROWS_MAX, ROWS_MAX, rows_per_request_max)
        self._pending_max = requests_pending_max

    def take(
        self, data: bytes | memoryview, requests_max: int, caller: Caller
    ) -> tuple[Sequence[Frame], int, int, int]:
        """As `BatchPath.take`."""
        engine = self._slot.engine
        room = min(requests_max, self._requests_max, self._pending_max - self._counters.pending)
        if engine is None or room <= 0:
            others, taken_bytes, needed_bytes = parse_frames(data, self._frame_bytes_max)
            return others, 0, taken_bytes, needed_bytes
        frames, others, taken_bytes, needed_bytes = take_ctr_frames(
            data,
            slots=engine.manifest.slots,
            dense=engine.manifest.dense_dim,
            requests_max=room,
            rows_max=self._rows_max,
            payload_bytes_max=PAYLOAD_BYTES_MAX,
            frame_bytes_max=self._frame_bytes_max,
        )
        if frames is None:
            return others, 0, taken_bytes, needed_bytes
        requests = len(frames)
        self._counters.pending += requests
        self._batches.put(FramesJob(engine, frames, caller, self._counters, time.monotonic()))
        return others, requests, taken_bytes, needed_bytes
