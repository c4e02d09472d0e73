"""Seeks of one engine that wait, joined as far as the configuration allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.sources import Source
from ctr_serving.turns import Turns, WaitingCall, turns_max
from cube_api import STATUS_FAILED, SeekResult
from cube_core.errors import SeekTimeoutError
from cube_core.wire.service import RpcContext

_IDS = (np.int64, np.uint64)
JOINED_KEYS_MAX = 16384
"""More of them the client cuts in a thread, which costs more than joining gains."""


class Seek(WaitingCall[SeekResult]):
    """One seek of one request.

    Attributes:
        request: what tells the request from others.
        instances, log_id: of the request.

    Raises:
        TypeError: the keys are no vector of ids.
    """

    def __init__(
        self, version: str, dim: int, keys: NDArray[Any], context: RpcContext, instances: int
    ) -> None:
        # Tables of this process, and a cache, would take the bytes of anything else for ids.
        if not isinstance(keys, np.ndarray) or keys.ndim != 1 or keys.dtype not in _IDS:
            is_array = isinstance(keys, np.ndarray)
            what = f"{keys.dtype}{[*keys.shape]}" if is_array else type(keys).__name__
            raise TypeError(f"ids must be a numpy array int64[n] or uint64[n], not {what}")
        super().__init__((version, dim, keys.dtype), max(1, len(keys)), context.deadline_s)
        self.version = version
        self.dim = dim
        self.keys = keys
        self.request = id(context)
        self.log_id = context.log_id
        self.instances = instances


class SeekQueue:
    """Asks one dict for the requests of one engine.

    A seek that finds fewer than the allowed ones under way begins at once, with those of the same
    version that came in the same step of the loop; the others wait for the end of one and then go
    together. Each gets its own rows, or its own error.

    Args:
        queue_timeout_s: what waited longer is refused.
    """

    def __init__(
        self,
        dict_name: str,
        conf: EngineConf,
        source: Source,
        counters: Counters,
        *,
        queue_timeout_s: float,
    ) -> None:
        self._dict_name = dict_name
        self._source = source
        self._counters = counters
        self._degrades = conf.degrades
        self._turns = Turns(
            self._answer,
            under_way_max=turns_max(conf),
            rows_max=JOINED_KEYS_MAX if conf.batch_rows_max else 0,
            timeout_s=queue_timeout_s,
        )

    def __iter__(self) -> Iterator[Seek]:
        """Those that wait."""
        return iter(self._turns)

    async def seek(
        self,
        keys: NDArray[np.int64],
        *,
        version: str,
        dim: int,
        context: RpcContext,
        instances: int,
    ) -> SeekResult:
        """Rows float32[n, dim] and status int32[n] of keys int64[n].

        Raises:
            TypeError: the keys are no vector of ids.
            SeekError, VersionNotLoadedError: the dict could not be asked.
            OverloadError: it waited longer than `queue_timeout_s`.
            RpcTimeoutError: the caller's timeout passed, or nearly.
        """
        seek = Seek(version, dim, keys, context, instances)
        self._turns.put(seek)
        return await seek.answer

    async def _answer(self, seeks: list[Seek]) -> None:
        start_s = time.monotonic()
        try:
            found = await self._found(seeks)
        except Exception as error:
            # A shard that is too slow would be so again.
            if len(seeks) == 1 or isinstance(error, SeekTimeoutError):
                for seek in seeks:
                    seek.fail(error)
            else:
                await self._answer_alone(seeks)
            return
        took_s = time.monotonic() - start_s
        self._turns.took(took_s)
        self._counters.observe("queue", max(seek.waited_s for seek in seeks))
        self._counters.observe("seek", took_s)
        await self._deal_out(seeks, found)

    async def _answer_alone(self, seeks: list[Seek]) -> None:
        """Asks for each by itself: what one is at fault for must not fail the others."""
        waiting = [seek for seek in seeks if seek.is_in_time()]
        await asyncio.gather(*(self._answer([seek]) for seek in waiting))

    async def _found(self, seeks: list[Seek]) -> SeekResult:
        first = seeks[0]
        is_joined = len(seeks) > 1
        on_failure: Literal["raise", "status"] = (
            "status" if self._degrades or is_joined else "raise"
        )
        return await self._source.seek(
            self._dict_name,
            np.concatenate([seek.keys for seek in seeks]) if is_joined else first.keys,
            version=first.version,
            dim=first.dim,
            on_failure=on_failure,
            log_id=next((seek.log_id for seek in seeks if seek.log_id), 0),
        )

    async def _deal_out(self, seeks: list[Seek], found: SeekResult) -> None:
        if len(seeks) == 1:
            seeks[0].succeed(found)
            return
        failed: list[Seek] = []
        begin = 0
        for seek in seeks:
            end = begin + len(seek.keys)
            status = found.status[begin:end]
            errors = found.errors if found.errors and (status == STATUS_FAILED).any() else ()
            if errors and not self._degrades:
                failed.append(seek)
            else:
                seek.succeed(SeekResult(found.rows[begin:end], status, found.version, errors))
            begin = end
        if len(found.errors) == 1:
            for seek in failed:
                seek.fail(found.errors[0])
        elif failed:
            # Which shards they ask is not known here: each is to be told of its own.
            await self._answer_alone(failed)


class SeekQueues(dict[str, SeekQueue]):
    """The queues of one engine by dict, made when they are asked for."""

    def __init__(
        self, conf: EngineConf, source: Source, counters: Counters, *, queue_timeout_s: float
    ) -> None:
        super().__init__()
        self._new = partial(
            SeekQueue, conf=conf, source=source, counters=counters, queue_timeout_s=queue_timeout_s
        )
        counters.queues.append(self._rows)

    def __missing__(self, dict_name: str) -> SeekQueue:
        queue = self[dict_name] = self._new(dict_name)
        return queue

    def _rows(self) -> int:
        """Instances that wait for vectors to be asked for, of one dict or of several."""
        waiting = [seek for queue in self.values() for seek in queue]
        return sum({seek.request: seek.instances for seek in waiting}.values())
