"""The loop: deploy what the donefile names, and keep the servers at it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import httpx

from cube_core.errors import BuildError, ControlError, DonefileError
from cube_transfer.build import Builders
from cube_transfer.control_client import ServersHttp
from cube_transfer.deploy import Deployer
from cube_transfer.donefiles import Donefiles, ListedPatches
from cube_transfer.fleet import Fleet
from cube_transfer.listing import (
    bases_that_go_back,
    new_bases,
    next_patch,
    outdated_patches,
    patches_that_go_back,
)
from cube_transfer.reshard import reshard_record
from cube_transfer.rollback import rollback_record, rolled_back_passes
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage, State
from cube_transfer.tables import TableStack
from cube_transfer.tidy import published_lately, tidy
from cube_transfer.together import all_together

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retry:
    """What was tried again: `did` goes on after the version's name."""

    record: PassRecord
    did: str


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
        control_http: ServersHttp,
    ) -> None:
        conf = settings.conf
        self.settings = settings
        self.state = state
        self.donefiles = Donefiles(conf, source_http)
        self.fleet = Fleet(conf.replicas, control_http, settings.replica_deadline_s)
        self._builders = Builders(keep_warm=conf.mode == "base_delta")
        self.deployer = Deployer(
            settings, state, self.fleet, source_http, self._newer_listed, self._builders
        )
        self.reconcile_error = ""
        self._models_stay = False
        self._ordered: PassRecord | None = None
        self._ordering = asyncio.Lock()

    async def run(self) -> None:
        """Runs until cancelled."""
        try:
            await all_together([self.donefiles.run(), self._deploy_for_ever()])
        finally:
            await self._builders.close()

    async def _deploy_for_ever(self) -> None:
        await asyncio.to_thread(tidy, self.settings, self.state)
        await self._take_up()
        while True:
            await self._builders.warm()
            self.donefiles.changed.clear()
            self.deployer.forget_give_up()
            record = await self._take_ordered()
            if record is None and not self.state.paused:
                record = await self._take_new()
            if record is not None:
                await self.deployer.deploy(record)
                self._models_stay = True
                continue
            await self._tidy_models()
            await self._reconcile_until_change()

    async def _tidy_models(self) -> None:
        """Removes models that stayed for whoever was loading them, after the last of a run."""
        if self._models_stay and not published_lately(self.state):
            await asyncio.to_thread(tidy, self.settings, self.state)
            self._models_stay = False

    async def rollback(self, version: str) -> PassRecord:
        """Orders a rollback; it is recorded when this returns, and gives up what is under way.

        Args:
            version: "" for the one that was served before.

        Raises:
            ControlError: it cannot be gone back to, or another command is waiting.
        """
        async with self._ordering:
            self._require_nothing_ordered()
            under_way = self.deployer.under_way
            record = await asyncio.to_thread(
                rollback_record, self.settings, self.state, version, under_way
            )
            await self._order(record)
        self.deployer.give_up(f"{record.version} was wanted back; `retry` deploys this pass anew")
        return record

    async def retry(self, pass_id: str) -> Retry:
        """Has tried again at once what waits for its next attempt: the pass under way, a failed
        pass, or servers that are behind what is served.

        Args:
            pass_id: "" for the one under way, else the newest that failed, else the one served.

        Raises:
            ControlError: there is nothing to try again of that name.
        """
        async with self._ordering:
            under_way = self.deployer.under_way
            if under_way is not None:
                if pass_id not in ("", under_way.id):
                    raise ControlError(f"{under_way.id} is under way; pass {pass_id} has to wait")
                self.fleet.patience.lose()
                return Retry(under_way, "is tried again at once")
            self._require_nothing_ordered()
            try:
                record = failed_pass(self.state, pass_id)
            except ControlError:
                behind = self._retry_behind(pass_id)
                if behind is None:
                    raise
                return behind
            again = record.anew(self.state.next_order())
            await self._order(again)
            return Retry(again, "is deployed anew")

    def _retry_behind(self, pass_id: str) -> Retry | None:
        """Has the servers tried again that are not at what is served; None when all are."""
        wanted = self.state.wanted
        served = (each for each in self.state.records() if each.version == wanted)
        record = next((each for each in served if pass_id in ("", each.id)), None)
        behind = [link.replica.name for link in self.fleet.links if not link.is_at(wanted)]
        if record is None or not behind:
            return None
        self.donefiles.changed.set()
        return Retry(record, f"is tried again at once on {', '.join(behind)}")

    async def set_paused(self, paused: bool) -> None:
        """Paused, the daemon begins no new pass; what is under way goes on, and so do commands."""
        await self.deployer.record(paused=paused)
        log.info("paused" if paused else "resumed")
        self.donefiles.changed.set()

    def _require_nothing_ordered(self) -> None:
        if self._ordered is not None:
            raise ControlError(f"{self._ordered.id} ({self._ordered.version}) is still waiting")

    async def _order(self, record: PassRecord) -> None:
        await self.deployer.record(record)
        self._ordered = record
        self.donefiles.changed.set()

    async def _take_up(self) -> None:
        """Goes on with what was under way when the daemon ended."""
        unfinished = self.state.unfinished()
        reshard = await asyncio.to_thread(reshard_record, self.settings, self.state)
        if not unfinished:
            self._ordered = reshard
            return
        newest, *others = unfinished
        for other in others:
            changes = {"stage": Stage.FAILED, "error": f"given up for {newest.id}"}
            await self.deployer.record(other.model_copy(update=changes))
        if reshard is not None and newest.kind == "pass" and newest.previous:
            await self._put_off(newest, reshard)
            return
        log.info("pass %s: goes on after %s", newest.id, newest.stage.value)
        await self._begin(newest)
        ended = await self.deployer.deploy(newest)
        if ended.stage is not Stage.DONE and newest.kind != "reshard" and self._ordered is None:
            self._ordered = reshard

    async def _put_off(self, patch: PassRecord, reshard: PassRecord) -> None:
        """The new servers get what a patch is laid over; then its line is taken again."""
        changes = {"stage": Stage.SUPERSEDED, "step": "", "error": f"put off for {reshard.id}"}
        await self.deployer.record(patch.model_copy(update=changes), reshard)
        self._ordered = reshard

    async def _take_ordered(self) -> PassRecord | None:
        record, self._ordered = self._ordered, None
        if record is not None:
            await self._begin(record)
        return record

    async def _begin(self, record: PassRecord) -> None:
        if record.kind == "rollback":
            await self.deployer.record(*rolled_back_passes(self.state, record))

    async def _take_new(self) -> PassRecord | None:
        """Records what is new in the donefiles: the newest base is to be deployed, and the others
        are superseded by it; without a new base, the next patch of the one that is served."""
        listed = self.donefiles.bases.reading.entries
        for error in bases_that_go_back(listed, self.state):
            self.donefiles.bases.tell_once(str(error))
        bases = new_bases(listed, self.state)
        if not bases:
            return await self._take_patch()
        order = self.state.next_order()
        *older, newest = bases
        superseded = [
            PassRecord.of(entry, order + place, stage=Stage.SUPERSEDED)
            for place, entry in enumerate(older)
        ]
        record = PassRecord.of(newest, order + len(older))
        await self.deployer.record(*superseded, record)
        return record

    async def _take_patch(self) -> PassRecord | None:
        entries = self.listed_patches().entries
        if self.donefiles.patches is not None:
            for error in patches_that_go_back(entries, self.state):
                self.donefiles.patches.tell_once(str(error))
        order = self.state.next_order()
        skipped = [
            PassRecord.of(
                entry,
                order + place,
                previous=f"{entry.base}_{entry.base}",
                stage=Stage.SUPERSEDED,
                error=f"skipped: its base {entry.base}_{entry.base} is not current any more",
            )
            for place, entry in enumerate(outdated_patches(entries, self.state))
        ]
        for each in skipped:
            log.warning("patch %s: %s", each.id, each.error)
        entry = next_patch(entries, self.state)
        previous = self.state.newest_of_base(entry.base) if entry else None
        taken = None
        if entry is not None and previous is not None:
            taken = PassRecord.of(entry, order + len(skipped), previous=previous.version)
        if skipped or taken:
            await self.deployer.record(*skipped, *([taken] if taken else []))
        return taken

    def listed_patches(self) -> ListedPatches:
        """What patch.txt names, with the base of each."""
        bases = (each for each in reversed(self.state.records()) if each.is_base)
        return self.donefiles.listed_patches({each.key: each.parsed_version.base for each in bases})

    def bad_lines(self) -> dict[str, list[DonefileError]]:
        """Why lines are not taken, those that are at fault only with what was deployed before among
        them; of "base", and of "patch" where patches are deployed."""
        bases, patches = self.donefiles.bases.reading, self.donefiles.patches
        found = {"base": [*bases.errors, *bases_that_go_back(bases.entries, self.state)]}
        if patches is not None:
            listed = self.listed_patches()
            going_back = patches_that_go_back(listed.entries, self.state)
            found["patch"] = [*patches.reading.errors, *listed.errors, *going_back]
        return found

    def _newer_listed(self, record: PassRecord) -> bool:
        if self.state.paused:
            return False
        return bool(new_bases(self.donefiles.bases.reading.entries, self.state))

    async def _serving_tables(self) -> TableStack | None:
        try:
            tables = await self.deployer.serving_tables()
            self.reconcile_error = ""
            return tables
        except (BuildError, OSError) as error:
            if not self.reconcile_error:
                log.error("servers that lose %s cannot get it back: %s", self.state.wanted, error)
            self.reconcile_error = str(error)
            return None

    async def _reconcile_until_change(self) -> None:
        """Returns when the interval is over; at once when there is something new, which a server
        that is long in coming back must not hold up."""
        reconciling = asyncio.ensure_future(self._reconcile())
        changed = asyncio.ensure_future(self.donefiles.changed.wait())
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


def failed_pass(state: State, pass_id: str) -> PassRecord:
    """The pass that failed, or the newest that did.

    Args:
        pass_id: its id, or its version.

    Raises:
        ControlError: there is none, or a newer one is served.
    """
    failed = [each for each in state.records() if each.stage is Stage.FAILED]
    failed = [
        each for each in failed if each.kind == "pass" and pass_id in ("", each.id, each.version)
    ]
    if not failed:
        raise ControlError(f"pass {pass_id} has not failed" if pass_id else "no pass has failed")
    newest = failed[0]
    stack = state.stack_of(state.wanted)
    # A base takes the place of another with all patches over it.
    newer = stack[-1:] if newest.previous else stack[:1]
    if any(newest.order < each.order for each in newer):
        raise ControlError(f"pass {newest.id} is older than {state.wanted}, which is served")
    return newest
