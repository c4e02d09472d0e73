"""Brings one shard server to a version, step by step; every step may be repeated."""

from __future__ import annotations

import asyncio
import time

from cube_core.conf.transfer_conf import Replica
from cube_core.errors import BuildError, ConnectError, DeployError, RpcError
from cube_core.redaction import redacted
from cube_transfer.control_client import ControlClient, ReplicaVersions, ServersHttp
from cube_transfer.tables import TableSet, TableStack

# A server that is slower than this is taken for hung.
DOWNLOAD_BYTES_PER_S_MIN = 5_000_000
LOAD_BYTES_PER_S_MIN = 50_000_000
COMMAND_TIMEOUT_S = 60.0


class ReplicaLink:
    """One server, and what is known about it."""

    def __init__(self, replica: Replica, http: ServersHttp) -> None:
        self.replica = replica
        self.versions: ReplicaVersions | None = None
        """As last seen; None = never reached."""
        self.seen_at_s = 0.0
        """`time.monotonic()` of that."""
        self.error = ""
        """Why the last attempt failed; "" after a success."""
        self.attempts = 0
        """Failed attempts in a row."""
        self.failing_since_s: float | None = None
        """`time.monotonic()` of the first of them; None = none."""
        self._client = ControlClient(replica, http)

    def is_at(self, version: str) -> bool:
        """Whether it answered from the version when it was last asked, and has not failed since."""
        current = self.versions.current if self.versions else ""
        return bool(version) and not self.error and current == version

    async def refresh(self) -> ReplicaVersions:
        self.versions = await self._client.status()
        self.seen_at_s = time.monotonic()
        return self.versions

    async def ensure_shipped(self, tables: TableStack) -> None:
        """The server has its table of the version on disk, verified; it checks for itself whether
        it has it already. What the version is laid over is not shipped again."""
        await self._ship(tables.top)

    async def _ship(self, tables: TableSet) -> None:
        table = tables.tables[self.replica.shard]
        await self._client.command(
            "download",
            version=tables.version,
            url=table.url,
            size=table.file_bytes,
            crc32c=table.crc32c,
            timeout_s=COMMAND_TIMEOUT_S + table.file_bytes / DOWNLOAD_BYTES_PER_S_MIN,
        )

    async def require_shards(self, shard_num: int) -> None:
        """Raises DeployError when the server serves a table of another number of shards: a client
        that knows the old topology would miss keys there after the switch."""
        current = (await self.refresh()).current
        if not current:
            return
        found = await self._client.shard_num(current, timeout_s=COMMAND_TIMEOUT_S)
        if found not in (None, shard_num):
            raise DeployError(
                f"{self.replica.name} ({self.replica.endpoint}): serves {current} in {found} "
                f"shards, not {shard_num}; give the new topology servers of its own"
            )

    async def ensure_loaded(self, tables: TableStack) -> None:
        """The version is in the server's memory, beside the one it serves."""
        versions = await self.refresh()
        if versions.current == tables.version:
            return
        try:
            await self._load(tables.top, tables.previous)
        except ConnectError:
            raise
        except RpcError:
            # A server that lost its disk since the version was shipped, or has not got what the
            # version is laid over.
            await self._load_from_below(tables, versions.current)

    async def _load_from_below(self, tables: TableStack, current: str) -> None:
        """Ships and loads, in order, what lies over `current`; from the base on when that is none
        of the version's own."""
        start = tables.versions.index(current) + 1 if current in tables.versions else 0
        for version in tables.versions[start:]:
            try:
                layer = await asyncio.to_thread(tables.read, version)
            except BuildError as error:
                raise RpcError(
                    f"{self.replica.name} ({self.replica.endpoint}): needs {version} to be brought "
                    f"to {tables.version}, and that is not kept any more: {error}"
                ) from error
            await self._ship(layer)
            await self._load(layer, tables.below(version))

    async def _load(self, tables: TableSet, previous: str) -> None:
        table = tables.tables[self.replica.shard]
        await self._client.command(
            "bg_load_patch" if previous else "bg_load_base",
            version=tables.version,
            **({"previous": previous} if previous else {}),
            timeout_s=COMMAND_TIMEOUT_S + table.file_bytes / LOAD_BYTES_PER_S_MIN,
        )

    async def ensure_switched(self, tables: TableStack) -> None:
        """The server serves the version."""
        versions = await self.refresh()
        if versions.current == tables.version:
            return
        await self.ensure_loaded(tables)
        await self._client.command("bg_switch", version=tables.version, timeout_s=COMMAND_TIMEOUT_S)
        versions = await self.refresh()
        if versions.current != tables.version:
            raise RpcError(
                f"{self.replica.name} ({self.replica.endpoint}): bg_switch: it still serves "
                f"{versions.current or 'nothing'} and not {tables.version}"
            )

    async def ensure_told(self, version: str) -> None:
        """The server knows what it is to serve: it says that it is not ready while it serves
        something older."""
        versions = self.versions or await self.refresh()
        if versions.wanted not in (None, version):
            await self._client.command("want", version=version, timeout_s=COMMAND_TIMEOUT_S)

    async def drop_background(self, version: str) -> None:
        """The server holds no other version than `version` ready for a switch, so that a command of
        a deployment that was given up, still on its way, cannot switch it any more."""
        if (await self.refresh()).background not in ("", version):
            await self._client.command("bg_unload", timeout_s=COMMAND_TIMEOUT_S)

    def note_failure(self, error: BaseException) -> None:
        self.error = redacted(str(error) or type(error).__name__)
        self.attempts += 1
        if self.failing_since_s is None:
            self.failing_since_s = time.monotonic()

    def note_success(self) -> None:
        self.error = ""
        self.attempts = 0
        self.failing_since_s = None
