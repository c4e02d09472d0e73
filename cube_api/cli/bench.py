"""Load on the servers of a dict: closed loop, or open loop at a given rate."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cube_api._client import CubeClient
from cube_api.cli.tally import Figures, Tally, figures_of
from cube_api.cli.threads import run_together
from cube_core.conf.cube_conf import DictConf
from cube_core.errors import CubeError


@dataclass(frozen=True)
class Bench:
    """One measurement.

    Attributes:
        batches: uint64[n, batch], asked for in turn, over and over.
        concurrency: threads, each with one seek under way.
        rate: seeks a second of all threads together, sent at times fixed beforehand; None for a
            closed loop, in which a thread sends its next seek when the last one is answered.
        duration_s: seeks begin in that time; those under way at its end are waited for.
    """

    conf: DictConf
    batches: NDArray[np.uint64]
    concurrency: int
    rate: float | None
    duration_s: float

    def run(self) -> Figures:
        """Runs the load. A seek's latency is counted from the time when it was to be sent, also
        when no thread was free then: a server that stalls is charged for every seek it held up."""
        name = self.conf.dict_name
        turns = itertools.count()
        with CubeClient({name: self.conf}) as client:

            def prepare() -> None:
                client.seek(name, self.batches[0])  # connects, and fails early

            def work(_: int, tally: Tally, begin_s: float) -> None:
                for turn, intended_s in self._times(turns, begin_s):
                    try:
                        result = client.seek(name, self.batches[turn % len(self.batches)])
                    except CubeError as error:
                        tally.fail(error)
                    else:
                        tally.add(result, time.perf_counter() - intended_s)

            tallies, elapsed_s = run_together(self.concurrency, prepare, work)
        return figures_of(tallies, elapsed_s)

    def _times(self, turns: Iterator[int], begin_s: float) -> Iterator[tuple[int, float]]:
        """Yields the number of each seek and the time it is to be sent, when that has come."""
        while True:
            turn = next(turns)
            now_s = time.perf_counter()
            intended_s = now_s if self.rate is None else begin_s + turn / self.rate
            if intended_s >= begin_s + self.duration_s:
                return
            if intended_s > now_s:
                time.sleep(intended_s - now_s)
            yield turn, intended_s
