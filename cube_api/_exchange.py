"""Runs a seek over the connections of an event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from cube_api._call import Ask, SeekCall
from cube_core._native import Frame
from cube_core.endpoint import Endpoint
from cube_core.errors import RpcError, SeekTimeoutError
from cube_core.wire.prpc_channel import AsyncChannel, Ticket


class Exchange:
    """One seek's requests in flight."""

    def __init__(self, call: SeekCall[Any], channel_to: Callable[[Endpoint], AsyncChannel]) -> None:
        self._call = call
        self._channel_to = channel_to
        self._in_flight: dict[int, tuple[Ask, Ticket]] = {}
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = math.inf

    def adopt(self, ask: Ask, ticket: Ticket) -> None:
        """Waits for a request that was sent before; its outcome is to be told by `take`."""
        self._in_flight[ask.correlation_id] = (ask, ticket)

    async def run(self) -> None:
        """Runs the call to its end; raises what it raises."""
        try:
            self._send(self._call.start())
            if self._done.done() or not self._call.is_done:
                await self._done
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._drop()
            self._call.end()

    def take(self, ask: Ask, outcome: Frame | RpcError) -> None:
        """What came of a request."""
        self._in_flight.pop(ask.correlation_id, None)
        if self._done.done():
            return
        try:
            self._send(self._call.on_outcome(ask, outcome))
        except Exception as error:
            self._done.set_exception(error)
        else:
            if self._call.is_done:
                self._done.set_result(None)

    def _send(self, asks: list[Ask]) -> None:
        for ask in asks:
            ticket = self._channel_to(ask.endpoint).submit(
                ask.frame, ask.correlation_id, partial(self.take, ask)
            )
            self._in_flight[ask.correlation_id] = (ask, ticket)
        if not self._call.is_done and self._call.wake_s < self._timer_s:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = self._call.wake_s
        wait_s = max(0.0, self._timer_s - time.monotonic())
        self._timer = self._loop.call_later(wait_s, self._on_timer)

    def _on_timer(self) -> None:
        if self._done.done():
            return
        now_s = time.monotonic()
        if now_s >= self._call.deadline_s:
            self._expire()
            return
        self._timer_s = math.inf
        self._send(self._call.on_time(now_s))

    def _drop(self) -> None:
        for ask, ticket in self._in_flight.values():
            # Its connection may be what is dead, while the server answers probes on another.
            if ask.replica.health.is_aside:
                ticket.expire()
            else:
                ticket.cancel()

    def _expire(self) -> None:
        for _, ticket in self._in_flight.values():
            ticket.expire()
        try:
            self._call.expire()
        except SeekTimeoutError as error:
            self._done.set_exception(error)
        else:
            self._done.set_result(None)
