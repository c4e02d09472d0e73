"""The way of one pass into production, as a state machine.

    noticed ─pull─> pulled ─build─> built ─ship─> shipped ─load─> loaded ─switch─> switched
            ─publish─> published ─tidy─> done

Every step is recorded before it is begun and may be repeated, so a daemon that was killed begins
the step again that it was in. What fails for a reason that may pass is tried again; what is wrong
with the pass itself makes it `failed`, and what was served before stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import httpx
import lmdb

from cube_builder.job import BuildReport
from cube_core.errors import BuildError, ConfError, CubeError, DeployError
from cube_core.log import fields as log_fields
from cube_transfer.backoff import until_done
from cube_transfer.build import Builders
from cube_transfer.cube_conf_file import update_cube_conf
from cube_transfer.dense_manifest import check_dense
from cube_transfer.deploy_counts import DeployCounts
from cube_transfer.fleet import Fleet
from cube_transfer.publisher import Publisher
from cube_transfer.replica_link import ReplicaLink
from cube_transfer.reshard import has_other_shards
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage, State
from cube_transfer.tables import TableStack, read_stack
from cube_transfer.tidy import tidy

log = logging.getLogger(__name__)


class SupersededError(DeployError):
    """A newer pass is there, and this one does not get on."""


class GivenUpError(DeployError):
    """An operator wants something else."""


@dataclass(frozen=True)
class Step:
    """One step of the state machine, and the stage it leads to."""

    name: str
    reaches: Stage
    run: Callable[[PassRecord], Awaitable[None]]
    may_be_cut_short: bool = True
    is_barrier: bool = False


class Deployer:
    """Deploys one pass at a time.

    Args:
        newer_listed: whether a donefile names what is to take the place of the given pass by now.
    """

    def __init__(
        self,
        settings: Settings,
        state: State,
        fleet: Fleet,
        http: httpx.AsyncClient,
        newer_listed: Callable[[PassRecord], bool],
        builders: Builders,
    ) -> None:
        self.under_way: PassRecord | None = None
        self.error = ""
        """Why the step under way has not succeeded yet."""
        self.started_at_s = 0.0
        """Unix seconds at which this process began what is under way."""
        self.counts = DeployCounts()
        self._settings = settings
        self._state = state
        self._fleet = fleet
        self._http = http
        self._newer_listed = newer_listed
        self._builders = builders
        self._publisher = Publisher(settings, state, http)
        self._serves_own_shards = True
        self._late_replicas: tuple[str, ...] = ()
        self._given_up = asyncio.Event()
        self._reason = ""
        self._steps = (
            Step("pull", Stage.PULLED, self._pull),
            Step("build", Stage.BUILT, self._build),
            Step("ship", Stage.SHIPPED, self._ship, is_barrier=True),
            Step("load", Stage.LOADED, self._load, is_barrier=True),
            Step("switch", Stage.SWITCHED, self._switch, is_barrier=True),
            Step("publish", Stage.PUBLISHED, self._publish, may_be_cut_short=False),
            Step("tidy", Stage.DONE, self._tidy, may_be_cut_short=False),
        )

    def give_up(self, reason: str) -> None:
        """Ends what is under way as failed, unless the servers have switched to it: the short rest
        is done then."""
        self._reason = reason
        self._given_up.set()

    def forget_give_up(self) -> None:
        """Called before it is decided what to deploy next."""
        self._given_up.clear()

    async def deploy(self, record: PassRecord) -> PassRecord:
        """Takes a pass from the stage it has reached to a final one."""
        with log_fields(dict=self._settings.conf.dict_name, version=record.version):
            return await self._deploy(record)

    async def _deploy(self, record: PassRecord) -> PassRecord:
        self.started_at_s = time.time()
        try:
            record = await self._run_steps(record)
            log.info("pass %s: version %s is served", record.id, record.version)
        except SupersededError as error:
            log.info("pass %s: superseded: %s", record.id, error)
            record = await self._end(Stage.SUPERSEDED, error)
        except CubeError as error:
            log.error("pass %s: failed: %s", record.id, error)
            record = await self._end(Stage.FAILED, error)
        except Exception as error:
            log.exception("pass %s: failed", record.id)
            record = await self._end(Stage.FAILED, error)
        finally:
            self.under_way = None
            self.error = ""
        self.counts.count(record)
        return record

    async def serving_tables(self) -> TableStack | None:
        """What all servers are to serve; None before the first switch.

        Raises:
            BuildError: it is not in output_address any more.
        """
        wanted = self._state.wanted
        others: bool = await asyncio.to_thread(has_other_shards, self._settings, wanted)
        if others:
            # Served by the servers of another topology, which this one does not name.
            return None
        return await asyncio.to_thread(self._read_stack, wanted) if wanted else None

    async def record(
        self,
        *records: PassRecord,
        wanted: str | None = None,
        paused: bool | None = None,
    ) -> None:
        """Writes to the state; a full disk is waited for."""

        def note(error: BaseException, attempt: int) -> None:
            self.error = f"the state cannot be written: {error}"
            if attempt == 1:
                log.error("%s; trying again", self.error)

        async def save() -> None:
            await asyncio.to_thread(self._state.save, *records, wanted=wanted, paused=paused)

        await until_done(save, on_failure=note, transient=(OSError, lmdb.Error))

    async def _run_steps(self, record: PassRecord) -> PassRecord:
        record = await self._resume(record)
        reached = [Stage.NOTICED, *(step.reaches for step in self._steps)]
        for step in self._steps[reached.index(record.stage) :]:
            log.info("pass %s: %s", record.id, step.name)
            record = await self._save(record, step=step.name)
            begin_s = time.monotonic()
            await self._until_done(step, record)
            self.counts.step_seconds[step.name].add(time.monotonic() - begin_s)
            record = await self._reach(record, step)
        return record

    async def _resume(self, record: PassRecord) -> PassRecord:
        """Goes back to the start when what earlier steps made is not there any more."""
        self.under_way = record
        if record.stage in (Stage.BUILT, Stage.SHIPPED, Stage.LOADED):
            try:
                await asyncio.to_thread(self._read_stack, record.version)
                return record
            except BuildError as error:
                if record.kind == "rollback":
                    raise
                log.warning("pass %s: is built again: %s", record.id, error)
        elif record.stage is not Stage.PULLED:
            return record
        # Pulling what is there already is quick, and proves that it is there.
        return await self._save(record, stage=Stage.NOTICED)

    async def _until_done(self, step: Step, record: PassRecord) -> None:
        def note(error: BaseException, attempt: int) -> None:
            self.error = str(error) or type(error).__name__
            self.counts.step_failures[step.name] += 1
            if attempt == 1:
                log.warning("pass %s: %s: %s; trying again", record.id, step.name, self.error)
            self._give_way(record)

        work = until_done(lambda: step.run(record), on_failure=note, patience=self._fleet.patience)
        await self._unless_given_up(step, work)
        self.error = ""

    async def _unless_given_up(self, step: Step, work: Coroutine[Any, Any, None]) -> None:
        if not step.may_be_cut_short:
            await work
            return
        running = asyncio.ensure_future(work)
        given_up = asyncio.ensure_future(self._given_up.wait())
        try:
            await asyncio.wait({running, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            else:
                raise GivenUpError(f"given up: {self._reason}")
        finally:
            running.cancel()
            given_up.cancel()
            await asyncio.gather(running, given_up, return_exceptions=True)

    def _give_way(self, record: PassRecord) -> None:
        """Called after failed attempts, so a pass that gets on is never given up."""
        may_give_way = record.stage in (Stage.NOTICED, Stage.PULLED, Stage.BUILT, Stage.SHIPPED)
        if may_give_way and self._newer_listed(record):
            raise SupersededError(f"a newer pass is listed, and {record.step} does not get on")

    def _layers(self, record: PassRecord) -> list[PassRecord]:
        """What is to be pulled and built: the pass alone, but for new shards also all that it is
        laid over."""
        return self._state.stack_of(record.version) if record.kind == "reshard" else [record]

    async def _pull(self, record: PassRecord) -> None:
        for layer in self._layers(record):
            pulled = self._settings.pulled(layer.version)
            if layer.dense:
                # The small part first: a model of another pass need not cost the large one.
                await pulled.pull_dense(layer.dense, self._http)
                await asyncio.to_thread(self._check_dense, layer, None)
            await pulled.pull_input(layer.input, self._http)

    async def _build(self, record: PassRecord) -> None:
        for layer in self._layers(record):
            await self._build_layer(layer)

    async def _build_layer(self, record: PassRecord) -> None:
        conf, pulled = self._settings.conf, self._settings.pulled(record.version)
        options = conf.build
        if record.previous:
            base = await asyncio.to_thread(self._read_base, record)
            # What a patch changes is stored as the rest is, whatever the configuration says since.
            options = options.model_copy(update={"quant": base.quant})
        await self._builders.build(
            dict_name=conf.dict_name,
            version=record.parsed_version,
            input_path=pulled.input,
            output_path=self._settings.output_address,
            shard_num=conf.shard_num,
            options=options,
        )
        await pulled.require_unchanged()
        tables = (await asyncio.to_thread(self._read_stack, record.version)).top
        if record.dense:
            await asyncio.to_thread(self._check_dense, record, tables.value_bytes)

    def _read_base(self, record: PassRecord) -> BuildReport:
        base = record.parsed_version.base
        return BuildReport.read(self._settings.output_address / f"{base}_{base}")

    async def _ship(self, record: PassRecord) -> None:
        async def ship(link: ReplicaLink, tables: TableStack) -> None:
            if not self._serves_own_shards:
                await link.require_shards(self._settings.conf.shard_num)
            await link.ensure_shipped(tables)

        wanted = self._state.wanted
        others = await asyncio.to_thread(has_other_shards, self._settings, wanted)
        self._serves_own_shards = record.kind != "reshard" and not others
        await self._prepare(record, "ship", ship)

    async def _load(self, record: PassRecord) -> None:
        await self._prepare(record, "load", ReplicaLink.ensure_loaded)

    async def _switch(self, record: PassRecord) -> None:
        tables = await asyncio.to_thread(self._read_stack, record.version)

        async def switch(link: ReplicaLink) -> None:
            if record.kind == "rollback":
                await link.drop_background(tables.version)
            await link.ensure_switched(tables)
            # Not before: a server is ready as long as it serves what all others do.
            await link.ensure_told(tables.version)

        late = await self._fleet.barrier("switch", switch, lambda: self._give_way(record))
        self._late_replicas = tuple(late)

    async def _publish(self, record: PassRecord) -> None:
        if self._settings.cube_conf is not None:
            try:
                await asyncio.to_thread(
                    update_cube_conf, self._settings.cube_conf, self._settings.conf
                )
            except ConfError as error:
                # Tried again until it is put right: the servers have switched to the pass.
                raise OSError(str(error)) from error
        await self._publisher.publish(record)

    async def _tidy(self, record: PassRecord) -> None:
        await asyncio.to_thread(tidy, self._settings, self._state)

    async def _prepare(
        self,
        record: PassRecord,
        name: str,
        step: Callable[[ReplicaLink, TableStack], Awaitable[None]],
    ) -> None:
        """A barrier before the switch; a server that lost what it served gets that back first."""
        tables = await asyncio.to_thread(self._read_stack, record.version)
        # A rollback does not wait for a server to take what it leads away from, and new servers
        # have nothing to get back.
        serving = None if record.kind != "pass" else await self._serving_tables_or_none()

        async def prepare(link: ReplicaLink) -> None:
            if serving is not None and (await link.refresh()).current != tables.version:
                await link.ensure_switched(serving)
            await step(link, tables)

        await self._fleet.barrier(name, prepare, lambda: self._give_way(record))

    async def _serving_tables_or_none(self) -> TableStack | None:
        try:
            return await self.serving_tables()
        except BuildError as error:
            log.warning("servers that lost %s cannot get it back: %s", self._state.wanted, error)
            return None

    def _read_stack(self, version: str) -> TableStack:
        return read_stack(self._settings, self._state, version)

    def _check_dense(self, record: PassRecord, value_bytes: int | None) -> None:
        check_dense(
            self._settings.pulled(record.version).dense,
            dict_name=self._settings.conf.dict_name,
            version=record.version,
            value_bytes=value_bytes,
            where=record.dense,
        )

    async def _reach(self, record: PassRecord, step: Step) -> PassRecord:
        stage = step.reaches
        wanted = record.version if stage is Stage.SWITCHED else None
        changes: dict[str, Any] = {"stage": stage, "step": ""}
        changes["reached_at_s"] = {**record.reached_at_s, stage.value: time.time()}
        if step.is_barrier:
            took_s = {shard: round(s, 3) for shard, s in self._fleet.shards_took_s().items()}
            changes["shards_took_s"] = {**record.shards_took_s, step.name: took_s}
        if stage is Stage.SWITCHED:
            changes["late_replicas"] = self._late_replicas
        return await self._save(record, wanted, **changes)

    async def _end(self, stage: Stage, error: Exception) -> PassRecord:
        assert self.under_way is not None  # noqa: S101  set before the first step
        times = {**self.under_way.reached_at_s, stage.value: time.time()}
        text = str(error) or type(error).__name__
        record = await self._save(self.under_way, stage=stage, error=text, reached_at_s=times)
        await asyncio.to_thread(tidy, self._settings, self._state)
        return record

    async def _save(
        self, record: PassRecord, wanted: str | None = None, **changes: Any
    ) -> PassRecord:
        changed = record.model_copy(update=changes)
        await self.record(changed, wanted=wanted)
        self.under_way = changed
        return changed
