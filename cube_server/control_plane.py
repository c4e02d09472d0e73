"""What one server is and does besides seeks: versions, commands, status, metrics.

There is one of it a server, whatever number of processes answers the seeks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from cube_server.control import Control
from cube_server.counters import Counts
from cube_server.download import Downloads
from cube_server.settings import ServerSettings
from cube_server.store import DataDirectory
from cube_server.versions import DictVersions, Publish

if TYPE_CHECKING:
    from cube_server.metrics import ServerMetrics


class ControlPlane:
    """The one place where versions change.

    Args:
        publish: lets every serving process answer from other tables; returns when all do.
        counts: what all serving processes have counted.
    """

    def __init__(
        self,
        settings: ServerSettings,
        publish: Publish,
        counts: Callable[[], Awaitable[Counts]],
    ) -> None:
        self._settings = settings
        self._counts = counts
        self._started_s = time.monotonic()
        self._metrics: ServerMetrics | None = None
        self.store = DataDirectory(settings.data_dir, settings.dict_name, settings.shard)
        self.versions = DictVersions(
            self.store,
            publish,
            in_memory=settings.in_memory,
            shared=settings.workers > 1,
            keep_versions=settings.keep_versions,
        )
        self.downloads = Downloads(self.store)
        self.control = Control(self.versions, self.downloads)

    async def command(self, body: bytes) -> bytes:
        """Runs a control command; see `Control.run`."""
        return await self.control.run(body)

    async def ready(self) -> str:
        """Why no version is served; "" when one is."""
        if self.versions.served:
            return ""
        return self.versions.last_error or "no version is served"

    async def status(self) -> dict[str, Any]:
        """Everything a person wants to know, for JSON."""
        versions = self.versions
        on_disk = await asyncio.to_thread(self.store.versions)
        return {
            **self.control.state(),
            "ready": bool(versions.served),
            "last_error": versions.last_error,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "versions": _tables(versions),
            "versions_on_disk": [str(each) for each in on_disk],
            "workers": self._settings.workers,
            "counters": await self._counts(),
            "limits": self._settings.limits_by_name(),
        }

    async def metrics(self) -> bytes:
        """Everything that is counted, in Prometheus' text form."""
        counts = await self._counts()
        return await asyncio.to_thread(self._metrics_text, counts)

    def _metrics_text(self, counts: Counts) -> bytes:
        # prometheus_client takes a while to import, which a server that nobody scrapes need not.
        from cube_server.metrics import ServerMetrics

        if self._metrics is None:
            self._metrics = ServerMetrics(self.versions)
        return self._metrics.text(counts)


def _tables(versions: DictVersions) -> list[dict[str, Any]]:
    return [
        {
            "version": str(each.version),
            "role": role,
            "dict_name": each.table.dict_name,
            "shard": each.table.shard,
            "shard_num": each.table.shard_num,
            "key_count": each.table.key_count,
            "value_bytes": each.table.value_bytes,
            "file_bytes": each.table.file_bytes,
            "memory_bytes": each.table.memory_bytes,
            "load_seconds": round(each.load_s, 6),
        }
        for role, each in versions.loaded()
    ]
