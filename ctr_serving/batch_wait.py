"""A stated wait for more requests before a batch begins."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Protocol

_libc = ctypes.CDLL(None, use_errno=True)

WAIT_US_MAX = 10_000
"""Who waits for longer should ask with more rows."""


class _Waiting(Protocol):
    rows: int
    queued_s: float


class _Time(ctypes.Structure):
    """struct itimerspec: the interval, which stays zero, and what is left."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("left_s", ctypes.c_long),
        ("left_ns", ctypes.c_long),
    )


class BatchWait:
    """Says when what waits goes together: when it fills a batch, or the first has waited its time.

    The timers of the event loop count whole milliseconds; this one is the system's (timerfd).

    Args:
        wait_us: how long the first waits for others; 0: not at all.
        rows_max: rows that fill a batch.
        begin: called on the event loop when the time of the first is up.
    """

    def __init__(self, wait_us: int, rows_max: int, begin: Callable[[], object]) -> None:
        self._wait_s = wait_us / 1e6
        self._rows_max = rows_max
        self._begin = begin
        self._timer: int | None = None
        self._is_set = False

    def is_over(self, queue: Iterable[_Waiting]) -> bool:
        """Whether a batch may begin; else `begin` is called when it may. There is at least one in
        the queue, and the first came first."""
        if not self._wait_s:
            return True
        left_s = self._wait_s
        rows = 0
        # As each has a row at least, no more of them need be looked at.
        for index, waiting in enumerate(islice(queue, self._rows_max)):
            if not index:
                left_s -= time.monotonic() - waiting.queued_s
            rows += waiting.rows
            if left_s <= 0 or rows >= self._rows_max:
                return True
        self._call_in(left_s)
        return False

    def _call_in(self, left_s: float) -> None:
        if self._is_set:
            return
        if self._timer is None:
            flags = os.O_NONBLOCK | os.O_CLOEXEC
            self._timer = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, flags))
            asyncio.get_running_loop().add_reader(self._timer, self._ring, self._timer)
        # Of zero a timer is never due.
        spec = _Time(0, 0, 0, max(1, int(left_s * 1e9)))
        _checked(_libc.timerfd_settime(self._timer, 0, ctypes.byref(spec), None))
        self._is_set = True

    def _ring(self, timer: int) -> None:
        try:
            os.read(timer, 8)
        except BlockingIOError:
            return
        self._is_set = False
        self._begin()

    def __del__(self) -> None:
        # The loop holds it as long as it listens, so nobody does now.
        if self._timer is not None:
            os.close(self._timer)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
