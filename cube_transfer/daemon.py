"""The loop: deploy what the donefile names, and keep the servers at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import httpx

from cube_core.errors import BuildError
from cube_transfer.deploy import Deployer
from cube_transfer.donefile import DonefileEntry
from cube_transfer.fleet import Fleet
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage, State
from cube_transfer.tables import TableSet
from cube_transfer.tidy import tidy
from cube_transfer.together import all_together
from cube_transfer.watch import DonefileWatch

log = logging.getLogger(__name__)


class Daemon:
    """Everything of the daemon but its HTTP port.

    Args:
        source_http: fetches donefiles and passes.
        control_http: talks to the shard servers.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        source_http: httpx.AsyncClient,
        control_http: httpx.AsyncClient,
    ) -> None:
        conf = settings.conf
        self.settings = settings
        self.state = state
        self.watch = DonefileWatch(conf.donefile_address, conf.poll_interval_ms, source_http)
        self.fleet = Fleet(conf.replicas, control_http, settings.replica_deadline_s)
        self.deployer = Deployer(settings, state, self.fleet, source_http, self._newer_listed)
        self.reconcile_error = ""

    async def run(self) -> None:
        """Runs until cancelled."""
        await all_together([self.watch.run(), self._deploy_for_ever()])

    async def _deploy_for_ever(self) -> None:
        await asyncio.to_thread(tidy, self.settings, self.state)
        unfinished = self.state.unfinished()
        if unfinished is not None:
            log.info("pass %s: goes on after %s", unfinished.id, unfinished.stage.value)
            await self.deployer.deploy(unfinished)
        while True:
            self.watch.changed.clear()
            record = await self._take_newest()
            if record is not None:
                await self.deployer.deploy(record)
                continue
            await self._reconcile_until_change()

    async def _take_newest(self) -> PassRecord | None:
        """Records the passes that are new in the donefile: the newest is to be deployed, the
        others are superseded by it."""
        entries = new_entries(self.watch.reading.entries, self.state)
        if not entries:
            return None
        order = self.state.next_order()
        *older, newest = entries
        superseded = [
            PassRecord.of(entry, order + place, stage=Stage.SUPERSEDED)
            for place, entry in enumerate(older)
        ]
        record = PassRecord.of(newest, order + len(older))
        await self.deployer.record(*superseded, record)
        return record

    def _newer_listed(self, record: PassRecord) -> bool:
        return bool(new_entries(self.watch.reading.entries, self.state))

    async def _serving_tables(self) -> TableSet | None:
        try:
            tables = await self.deployer.serving_tables()
            self.reconcile_error = ""
            return tables
        except BuildError as error:
            if not self.reconcile_error:
                log.error("servers that lose %s cannot get it back: %s", self.state.wanted, error)
            self.reconcile_error = str(error)
            return None

    async def _reconcile_until_change(self) -> None:
        """Returns when the interval is over; at once when there is something new, which a server
        that is long in coming back must not hold up."""
        reconciling = asyncio.ensure_future(self._reconcile())
        changed = asyncio.ensure_future(self.watch.changed.wait())
        try:
            await asyncio.wait({reconciling, changed}, return_when=asyncio.FIRST_COMPLETED)
            if not changed.done():
                await asyncio.wait({changed}, timeout=self.settings.reconcile_interval_s)
            if reconciling.done():
                reconciling.result()
        finally:
            reconciling.cancel()
            changed.cancel()
            await asyncio.gather(reconciling, changed, return_exceptions=True)

    async def _reconcile(self) -> None:
        await self.fleet.reconcile(await self._serving_tables())


def new_entries(entries: Sequence[DonefileEntry], state: State) -> Sequence[DonefileEntry]:
    """The lines below the last one that is known. A pass that failed and whose line was changed
    since counts as new, so that it can be repaired in place."""
    for position in range(len(entries), 0, -1):
        entry = entries[position - 1]
        record = state.get(entry.id)
        if record is not None and not _is_repaired(record, entry):
            return entries[position:]
    return entries


def _is_repaired(record: PassRecord, entry: DonefileEntry) -> bool:
    return record.stage is Stage.FAILED and record.fields != dict(entry.fields)
