"""What keeps the page up to date, beside the daemon and never in its way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from cube_transfer.daemon import Daemon
from cube_transfer.page.listeners import Listeners
from cube_transfer.page.problems import Noticed, problems_of
from cube_transfer.page.sampling import Sampler
from cube_transfer.page.situation import situation_of
from cube_transfer.page.view import charts_json, state_json
from cube_transfer.together import all_together

STATE_INTERVAL_S = 1.0
"""Between two looks at the daemon's state, while somebody listens."""
_PAUSE_S = 0.1

log = logging.getLogger(__name__)


class Page:
    """Samples the servers always, and tells listeners what has changed.

    Attributes:
        listeners: who has the page open.
    """

    def __init__(self, daemon: Daemon, sampler: Sampler) -> None:
        self.listeners = Listeners()
        self._daemon = daemon
        self._sampler = sampler
        self._noticed = Noticed()
        self._names = [each.name for each in sampler.servers]
        self._samples = 0
        self._samples_sent = 0

    async def run(self) -> None:
        """Runs until cancelled. What goes wrong here is logged, and ends nothing else."""
        try:
            await all_together(
                [
                    _in_spite_of_errors(lambda: self._sampler.run(self._note_sampled)),
                    _in_spite_of_errors(self._tell_for_ever),
                ]
            )
        finally:
            self.listeners.close()

    def _note_sampled(self) -> None:
        self._samples += 1
        self.listeners.joined.set()

    async def _tell_for_ever(self) -> None:
        due = self.listeners.joined
        while True:
            due.clear()
            await self._tell()
            # However many come and go, the state is not made more often than this.
            await asyncio.sleep(_PAUSE_S)
            timeout_s = STATE_INTERVAL_S if self.listeners.count else None
            try:
                await asyncio.wait_for(due.wait(), timeout_s)
            except asyncio.TimeoutError:
                continue

    async def _tell(self) -> None:
        now = situation_of(self._daemon, self._sampler)
        # Also when nobody listens: problems know since when they are there.
        problems = self._noticed.dated(problems_of(now), now.at_s)
        if not self.listeners.count:
            return
        tables = self._daemon.settings.output_address
        self.listeners.send("state", await asyncio.to_thread(state_json, now, problems, tables))
        if self._samples_sent != self._samples:
            self._samples_sent = self._samples
            history = self._sampler.history.copy()
            ctr_names = [each.name for each in self._sampler.ctr_servers]
            charts = await asyncio.to_thread(charts_json, history, self._names, ctr_names)
            self.listeners.send("charts", charts)


async def _in_spite_of_errors(work: Callable[[], Awaitable[None]]) -> None:
    """Does the work again when it fails, after a pause."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("the page is not kept up to date; beginning again")
        await asyncio.sleep(STATE_INTERVAL_S)
