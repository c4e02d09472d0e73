"""All replicas of all shards: barriers, and bringing back those that fell behind."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import httpx

from cube_core.conf.transfer_conf import Replica
from cube_transfer.backoff import TRANSIENT, until_done
from cube_transfer.replica_link import ReplicaLink
from cube_transfer.tables import TableSet
from cube_transfer.together import all_together

log = logging.getLogger(__name__)

ReplicaStep = Callable[[ReplicaLink], Awaitable[None]]


class Fleet:
    """The shard servers of transfer.conf."""

    def __init__(self, replicas: Iterable[Replica], http: httpx.AsyncClient) -> None:
        self.links = tuple(ReplicaLink(replica, http) for replica in replicas)

    async def barrier(self, name: str, step: ReplicaStep, check: Callable[[], None]) -> None:
        """Runs `step` on every replica at once and returns when all have done it. A replica that
        fails is tried again for ever.

        Args:
            check: called after each failure; what it raises ends the barrier.
        """
        await all_together(self._until_done(link, name, step, check) for link in self.links)

    async def reconcile(self, tables: TableSet | None) -> None:
        """Brings every replica that does not serve `tables` to it, one attempt each; None: only
        asks them what they serve."""
        await all_together(self._reconcile(link, tables) for link in self.links)

    async def _until_done(
        self, link: ReplicaLink, name: str, step: ReplicaStep, check: Callable[[], None]
    ) -> None:
        def note(error: BaseException, attempt: int) -> None:
            _note_failure(link, name, error)
            check()

        await until_done(lambda: step(link), on_failure=note)
        link.note_success()

    async def _reconcile(self, link: ReplicaLink, tables: TableSet | None) -> None:
        try:
            versions = await link.refresh()
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
