"""Which version a server is to serve, as whoever deploys says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from cube_core.errors import ControlError, CubeError
from cube_core.versions import Version
from cube_server.store import DataDirectory

log = logging.getLogger(__name__)


class Wanted:
    """Remembers what `want` named, in memory and on disk.

    After a restart what is on disk may be old, since nobody reached the server meanwhile: so it
    is not known which version is wanted, until somebody says so or `timeout_s` has passed.

    Args:
        on_change: called when the answer of `problem` may be another.

    Attributes:
        version: None: any, or not known yet.
    """

    def __init__(
        self, store: DataDirectory, timeout_s: float, on_change: Callable[[], object]
    ) -> None:
        self.version: Version | None = None
        self._before: Version | None = None
        self._is_written = True
        self._store = store
        self._timeout_s = timeout_s
        self._on_change = on_change
        self._writing = asyncio.Lock()

    async def start(self) -> None:
        """Reads what was wanted before the start, and begins to wait."""
        try:
            self._before = await asyncio.to_thread(self._store.wanted_version)
        except (CubeError, OSError) as error:
            log.error("starts without a wanted version: %s", error)
        asyncio.get_running_loop().call_later(self._timeout_s, self._take_what_was)

    async def set(self, version: Version | None) -> None:
        """Takes note of the version, also for the next start; None: any.

        Raises:
            ControlError: it cannot be written down; it holds until the server ends.
        """
        async with self._writing:
            known = self._is_written and version == (self.version or self._before)
            self.version, self._before = version, None
            self._on_change()
            if known:
                return
            self._is_written = False
            try:
                await asyncio.to_thread(self._store.record_wanted, version)
            except OSError as error:
                raise ControlError(
                    f"version {version} is wanted, but cannot be recorded for the next start:"
                    f" {error}"
                ) from error
            self._is_written = True

    def problem(self, current: Version) -> str:
        """How the current version is not the wanted one; "" when it is, or any is."""
        if self._before is not None:
            return (
                f"version {current} is served; waits up to {self._timeout_s:g} s to be told which"
                f" one is wanted, {self._before} was before the restart"
            )
        if self.version in (None, current):
            return ""
        return f"version {current} is served, {self.version} is wanted"

    def _take_what_was(self) -> None:
        if self._before is not None:
            self.version, self._before = self._before, None
            self._on_change()
