"""A seek as nearly every one of a server goes: pinned, and answered at once by every shard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_api._alarm import Alarm
from cube_api._answers import RowAnswers
from cube_api._balancer import Replica
from cube_api._call import Ask, SeekCall
from cube_api._exchange import Exchange
from cube_api._new_call import as_uint64
from cube_api._options import SeekOptions
from cube_api._result import SeekResult
from cube_api._spin import Spin
from cube_api._topology import DictTopology
from cube_core._native import Frame, SeekPlan
from cube_core.endpoint import Endpoint
from cube_core.errors import RpcError
from cube_core.wire.prpc_channel import AsyncChannel, Ticket

_UINT64_MAX = 2**64 - 1


class _Asked:
    """One shard's request."""

    __slots__ = ("correlation_id", "has_answered", "replicas", "seek", "shard", "ticket")

    ticket: Ticket

    def __init__(
        self, seek: PlainSeek, shard: int, replicas: list[Replica], correlation_id: int
    ) -> None:
        self.seek = seek
        self.shard = shard
        self.replicas = replicas
        self.correlation_id = correlation_id
        self.has_answered = False

    def take(self, outcome: Frame | RpcError) -> None:
        """The answer, or why there is none."""
        self.seek.take(self, outcome)

    def as_ask(self) -> Ask:
        # Nobody sends the frame again.
        return Ask(self.shard, self.replicas[0], self.correlation_id, b"")


class PlainSeek:
    """Asks every shard once, and takes the good answers of the pinned version. With the first
    thing that is anything else - an error, no answer, another version, the time for a backup
    request or the end of the timeout - a SeekCall goes on with what is in flight: what is to be
    done then is said there only.

    Args:
        keys: uint64[n] or int64[n], at least one.
        options: with a version and a dim, zeros for keys that are missing, and no log_id: each seek
            has another.

    Raises:
        TypeError, ValueError: keys that are no vector of these.
    """

    def __init__(
        self,
        target: DictTopology,
        keys: NDArray[Any],
        options: SeekOptions,
        channel_to: Callable[[Endpoint], AsyncChannel],
        alarm: Alarm,
        spin: Spin,
        log_id: int = 0,
    ) -> None:
        self._dict = target
        self._keys = keys
        self._options = options
        self._version = options.version or ""
        self._timeout_ms = options.timeout_ms or target.timeout_ms
        self._channel_to = channel_to
        self._alarm = alarm
        self._spin = spin
        self._log_id = log_id
        self._asked: list[_Asked] = []
        self._waiting_num = 0
        self._exchange: Exchange | None = None
        self._begin_s = time.monotonic()

    async def run(self) -> SeekResult:
        """The rows, as `CubeClient.seek` tells; raises what that raises."""
        try:
            self._send()
            await self._done
            if self._waiting_num:
                self._spin.remove(self)
                return await self._go_on()
        finally:
            self._alarm.remove(self)
            self._spin.remove(self)
            if self._waiting_num and self._exchange is None:
                self._drop()
        return SeekResult(self._rows, self._status, self._version)

    def take(self, asked: _Asked, outcome: Frame | RpcError) -> None:
        """The outcome of a request."""
        if self._exchange is not None:
            self._exchange.take(asked.as_ask(), outcome)
        elif self._untaken or not self._is_taken(asked, outcome):
            self._untaken.append((asked, outcome))
            self.late()
        elif not self._waiting_num and not self._done.done():
            self._done.set_result(None)

    def late(self) -> None:
        """See `Alarm`; also when it is anything else that keeps the seek from being a plain one."""
        if not self._done.done():
            self._done.set_result(None)

    def _send(self) -> None:
        target = self._dict
        self._plan, asks = self._begun()
        first_key = self._keys.item(0) & _UINT64_MAX
        for shard, correlation_id, frame in asks:
            replicas = target.shards[shard].in_order(first_key)
            asked = _Asked(self, shard, replicas, correlation_id)
            channel = self._channel_to(replicas[0].endpoint)
            asked.ticket = channel.submit(frame, correlation_id, asked.take)
            self._asked.append(asked)
            self._waiting_num += 1
        # From here on the shards are at work. What is not needed to send is done now: before, the
        # model has emptied the caches, and each thing it takes is read from memory first.
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._untaken: list[tuple[_Asked, Frame | RpcError]] = []
        self._set_due()
        for asked in self._asked:
            asked.replicas[0].health.sent(asked.correlation_id, self._begin_s)
            if target.backup_request_s is not None:
                target.hedges.count_request()
        self._rows = np.empty((len(self._keys), self._options.width or 0), np.float32)
        self._status = np.empty(len(self._keys), np.int32)
        self._alarm.add(self)
        self._spin.add(self)

    def _begun(self) -> tuple[SeekPlan, list[tuple[int, int, bytes]]]:
        target = self._dict
        begin = partial(
            SeekPlan.begin,
            shard_num=target.shard_num,
            version=self._version,
            timeout_ms=self._timeout_ms,
            dict_name=target.name,
            log_id=self._log_id,
        )
        try:
            return begin(self._keys)
        except (TypeError, ValueError):
            # Gaps are no fault of theirs; anything else is named.
            self._keys = as_uint64(self._keys)
            return begin(self._keys)

    def _set_due(self) -> None:
        self.due_s = self._begin_s + self._timeout_ms / 1000
        if self._dict.backup_request_s is not None:
            self.due_s = min(self.due_s, self._begin_s + self._dict.backup_request_s)

    def _is_taken(self, asked: _Asked, outcome: Frame | RpcError) -> bool:
        if not isinstance(outcome, Frame):
            return False
        if not self._plan.take(asked.shard, outcome, self._version, self._rows, self._status):
            return False
        asked.replicas[0].health.answered(asked.correlation_id)
        asked.has_answered = True
        self._waiting_num -= 1
        return True

    async def _go_on(self) -> SeekResult:
        taken = (self._rows, self._status)
        keys = as_uint64(self._keys)
        options = replace(self._options, log_id=self._log_id)
        answers = RowAnswers(self._dict, keys, self._plan, options, taken)
        call = SeekCall(self._dict, self._plan, keys.item(0), options, answers, self._begin_s)
        self._exchange = Exchange(call, self._channel_to)
        for asked in self._asked:
            ask = asked.as_ask()
            call.adopt(ask, asked.replicas, self._begin_s, has_answered=asked.has_answered)
            if not asked.has_answered:
                self._exchange.adopt(ask, asked.ticket)
        for asked, outcome in self._untaken:
            self._exchange.take(asked.as_ask(), outcome)
        await self._exchange.run()
        return call.result()

    def _drop(self) -> None:
        for asked in self._asked:
            if not asked.has_answered:
                asked.ticket.cancel()
                asked.replicas[0].health.dropped(asked.correlation_id)
