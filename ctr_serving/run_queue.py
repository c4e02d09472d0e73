"""Runs of one engine that wait, joined as far as the configuration allows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.engine import ROWS_PER_RUN_MAX
from ctr_serving.feeds import Feed, Ragged, joined, parts, rows_of, signature
from ctr_serving.joined_sizes import padded
from ctr_serving.network import Fetch, Network
from ctr_serving.trace import Trace
from ctr_serving.turns import Turns, WaitingCall
from cube_core.errors import PredictionError
from cube_core.wire.service import RpcContext


class _Run(WaitingCall[Fetch]):
    """One run, with all that is needed to join it looked up already, so that a feed which cannot
    be is the fault of its own request.

    Attributes:
        infer_s: what it took, with those that it was joined with.
    """

    def __init__(self, network: Network, feed: Feed, deadline_s: float | None) -> None:
        rows = rows_of(feed)
        if not rows:
            raise PredictionError("nothing to run: the inputs have no instances")
        super().__init__((network, signature(feed)), rows, deadline_s)
        self.network = network
        self.feed = feed
        self.infer_s = 0.0


class RunQueue:
    """Runs feeds one after the other, on the event loop, as Paddle holds the GIL while it runs.

    Runs that wait for the same model with inputs of the same shapes go together.

    Args:
        queue_timeout_s: what waited longer is refused.
    """

    def __init__(self, conf: EngineConf, counters: Counters, *, queue_timeout_s: float) -> None:
        self._name = conf.name
        self._counters = counters
        self._turns = Turns(
            self._answer,
            under_way_max=1,
            rows_max=conf.batch_rows_max,
            timeout_s=queue_timeout_s,
            wait_us=conf.batch_wait_us,
        )
        counters.queues.append(lambda: sum(run.rows for run in self._turns))

    def __iter__(self) -> Iterator[_Run]:
        """Those that wait."""
        return iter(self._turns)

    async def run(self, network: Network, feed: Feed, context: RpcContext, trace: Trace) -> Fetch:
        """Outputs [n, …] by name.

        Raises:
            PredictionError: the inputs are not those of the model, or Paddle refused to run it.
            OverloadError: it waited longer than `queue_timeout_s`.
            RpcTimeoutError: the caller's timeout passed, or nearly.
        """
        run = _Run(network, feed, context.deadline_s)
        self._turns.put(run)
        fetch = await run.answer
        trace.add_seconds(f"{self._name}.queue", run.waited_s)
        trace.add_seconds(f"{self._name}.infer", run.infer_s)
        if trace.is_detailed:
            trace.single_runs.append(_single_runs(network, feed, run.rows))
        return fetch

    async def _answer(self, runs: list[_Run]) -> None:
        start_s = time.monotonic()
        try:
            await self._run_together(runs)
            self._turns.took(time.monotonic() - start_s)
        except Exception as error:
            if len(runs) == 1:
                runs[0].fail(error)
                return
            # What one is at fault for must not fail the others.
            for run in runs:
                if run.is_in_time():
                    await self._answer([run])

    async def _run_together(self, runs: list[_Run]) -> None:
        start_s = time.perf_counter()
        feed, rows = joined([run.feed for run in runs]), sum(run.rows for run in runs)
        if len(runs) > 1:
            feed, rows = _padded(feed, rows, runs[0].network.rows_to_run(rows))
        fetch = await _run(runs[0].network, feed, rows)
        infer_s = time.perf_counter() - start_s
        self._counters.observe("queue", max(run.waited_s for run in runs))
        self._counters.observe("infer", infer_s)
        begin = 0
        for run in runs:
            end = begin + run.rows
            run.infer_s = infer_s
            run.succeed({name: each[begin:end] for name, each in fetch.items()})
            begin = end


def _padded(feed: Feed, rows: int, rows_to_run: int) -> tuple[Feed, int]:
    """With instances of zeros up to so many, where every input is an array."""
    arrays = {name: value for name, value in feed.items() if not isinstance(value, Ragged)}
    if len(arrays) < len(feed):
        return feed, rows
    return {name: padded(value, rows_to_run) for name, value in arrays.items()}, rows_to_run


def _single_runs(network: Network, feed: Feed, rows: int) -> Iterator[Callable[[], object]]:
    for part in parts(feed, rows, 1):
        yield partial(network.run, part)


async def _run(network: Network, feed: Feed, rows: int) -> Fetch:
    if rows <= ROWS_PER_RUN_MAX:
        return network.run(feed)
    fetches = []
    for part in parts(feed, rows, ROWS_PER_RUN_MAX):
        fetches.append(network.run(part))
        await asyncio.sleep(0)
    return {name: np.concatenate([fetch[name] for fetch in fetches]) for name in fetches[0]}
