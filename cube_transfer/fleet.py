"""All replicas of all shards: barriers, and bringing back those that fell behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from cube_core.conf.transfer_conf import Replica
from cube_transfer.backoff import TRANSIENT, Patience, until_done
from cube_transfer.control_client import ServersHttp
from cube_transfer.limits import REPLICA_DEADLINE_S
from cube_transfer.replica_link import ReplicaLink
from cube_transfer.tables import TableStack
from cube_transfer.together import all_together

log = logging.getLogger(__name__)

ReplicaStep = Callable[[ReplicaLink], Awaitable[None]]

_LATE_CHECK_INTERVAL_S = 0.1


class Fleet:
    """The shard servers of transfer.conf.

    Args:
        replica_deadline_s: a replica that fails for so long is left behind by a barrier that a
            replica of every shard has passed.
    """

    def __init__(
        self,
        replicas: Iterable[Replica],
        http: ServersHttp,
        replica_deadline_s: float = REPLICA_DEADLINE_S,
    ) -> None:
        self.links = tuple(ReplicaLink(replica, http) for replica in replicas)
        self.patience = Patience()
        """Between attempts at a server."""
        self.took_s: dict[str, float] = {}
        """Seconds that each replica took that passed the barrier under way, or the last one."""
        self._replica_deadline_s = replica_deadline_s

    async def barrier(self, name: str, step: ReplicaStep, check: Callable[[], None]) -> list[str]:
        """Runs `step` on every replica at once and returns when all have done it, but for those
        that are late: they fail for longer than the deadline, while every shard has a replica
        that has done it. What fails is tried again until then.

        Args:
            check: called after each failure; what it raises ends the barrier.

        Returns:
            names of the replicas that were left behind.
        """
        done: set[ReplicaLink] = set()
        late: list[str] = []
        began_s = time.monotonic()
        self.took_s = {}

        async def run(link: ReplicaLink) -> None:
            work = asyncio.ensure_future(self._until_done(link, name, step, check))
            try:
                while not work.done():
                    await asyncio.wait({work}, timeout=_LATE_CHECK_INTERVAL_S)
                    if not work.done() and self._may_leave_behind(link, done):
                        late.append(link.replica.name)
                        return
                work.result()
                done.add(link)
                self.took_s[link.replica.name] = time.monotonic() - began_s
            finally:
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await work

        await all_together(run(link) for link in self.links)
        if late:
            log.warning("%s goes on without %s", name, ", ".join(sorted(late)))
        return sorted(late)

    def shards_took_s(self) -> dict[int, float]:
        """As `took_s`, of the slowest replica of each shard."""
        took_s: dict[int, float] = {}
        for link in self.links:
            if (seconds := self.took_s.get(link.replica.name)) is not None:
                took_s[link.replica.shard] = max(took_s.get(link.replica.shard, 0.0), seconds)
        return took_s

    def shards_down(self) -> list[str]:
        """Each shard of which every replica fails at present, with the reason of each."""
        by_shard: dict[int, list[ReplicaLink]] = {}
        for link in self.links:
            by_shard.setdefault(link.replica.shard, []).append(link)
        return [
            f"no replica of shard {shard} gets on: {'; '.join(link.error for link in links)}"
            for shard, links in by_shard.items()
            if all(link.error for link in links)
        ]

    async def reconcile(self, tables: TableStack | None) -> None:
        """Brings every replica that does not serve `tables` to it, one attempt each; None: only
        asks them what they serve."""
        await all_together(self._reconcile(link, tables) for link in self.links)

    def _may_leave_behind(self, link: ReplicaLink, done: set[ReplicaLink]) -> bool:
        since_s = link.failing_since_s
        if since_s is None or time.monotonic() - since_s < self._replica_deadline_s:
            return False
        shards = {each.replica.shard for each in self.links}
        return {each.replica.shard for each in done} == shards

    async def _until_done(
        self, link: ReplicaLink, name: str, step: ReplicaStep, check: Callable[[], None]
    ) -> None:
        def note(error: BaseException, attempt: int) -> None:
            _note_failure(link, name, error)
            check()

        await until_done(lambda: step(link), on_failure=note, patience=self.patience)
        link.note_success()

    async def _reconcile(self, link: ReplicaLink, tables: TableStack | None) -> None:
        try:
            versions = await link.refresh()
            if tables is not None:
                await link.ensure_told(tables.version)
            if tables is not None and versions.current != tables.version:
                if not link.attempts:
                    found = versions.current or "nothing"
                    log.warning("%s serves %s, not %s", link.replica.name, found, tables.version)
                await link.ensure_switched(tables)
            link.note_success()
        except TRANSIENT as error:
            _note_failure(link, "reconcile", error)


def _note_failure(link: ReplicaLink, name: str, error: BaseException) -> None:
    link.note_failure(error)
    # A server that stays down is one line in the log, not one for each attempt.
    level = logging.WARNING if link.attempts == 1 else logging.DEBUG
    log.log(level, "%s: %s: %s; trying again", name, link.replica.name, link.error)
