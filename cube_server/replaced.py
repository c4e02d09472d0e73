"""Versions that others have taken the place of: which of them stay in memory, and how long."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cube_core._native import Table
from cube_core.versions import Version
from cube_server.loaded import LoadedTable

REPLACED_MAX = 64
"""Versions of a dict that are kept by time."""
REPLACED_BYTES_MAX = 128 << 20
"""Memory that they may take beside the others, on top of one whole table."""


@dataclass(frozen=True)
class KeepLimits:
    """How many versions stay, and how long.

    Attributes:
        versions: the newest, the current one counted, stay for any time.
        replaced_s: others stay that long after another has become the current one in their place,
            as far as `REPLACED_MAX` and `REPLACED_BYTES_MAX` allow: patches may come faster than
            whoever pins a version takes notice of the next.
    """

    versions: int
    replaced_s: float


class ReplacedVersions:
    """Remembers when each version was replaced, and picks those that stay."""

    def __init__(self, limits: KeepLimits) -> None:
        self._limits = limits
        self._replaced_at_s: dict[Version, float] = {}

    def note(self, before: LoadedTable | None, current: LoadedTable) -> None:
        """`current` takes the place of `before`, which may be the same version."""
        if before is not None:
            self._replaced_at_s[before.version] = time.monotonic()
        self._replaced_at_s.pop(current.version, None)

    def counted(self, served: Sequence[LoadedTable]) -> Sequence[LoadedTable]:
        """Those that stay for any time."""
        return served[: self._limits.versions]

    def timed(self, served: Sequence[LoadedTable]) -> Sequence[LoadedTable]:
        """Those that are kept by time."""
        return served[self._limits.versions :]

    def kept(self, served: Sequence[LoadedTable]) -> list[LoadedTable]:
        """Those that stay now; forgets about the others.

        Args:
            served: the current version first, then those before it, newest first.
        """
        kept = [*self.counted(served), *self._timed_now(served)]
        known = {each.version for each in kept}
        self._replaced_at_s = {v: s for v, s in self._replaced_at_s.items() if v in known}
        return kept

    def left_s(self, served: Sequence[LoadedTable]) -> float:
        """Seconds until the time of the last of them is over; 0.0 when none is kept by time."""
        now_s = time.monotonic()
        return max((self._until_s(each) - now_s for each in self.timed(served)), default=0.0)

    def extra_bytes(self, served: Sequence[LoadedTable]) -> int:
        """Memory of those that are kept by time, without what the others need as well."""
        shared = _parts(self.counted(served))
        own = {key: part for key, part in _parts(self.timed(served)).items() if key not in shared}
        return sum(part.memory_bytes for part in own.values())

    def _timed_now(self, served: Sequence[LoadedTable]) -> list[LoadedTable]:
        now_s = time.monotonic()
        young = [each for each in self.timed(served) if self._until_s(each) > now_s]
        counted = list(self.counted(served))
        bytes_max = REPLACED_BYTES_MAX + (served[0].whole.memory_bytes if served else 0)
        while young and not self._fit(counted, young, bytes_max):
            young.pop()
        return young

    def _fit(self, counted: list[LoadedTable], young: list[LoadedTable], bytes_max: int) -> bool:
        return len(young) <= REPLACED_MAX and self.extra_bytes([*counted, *young]) <= bytes_max

    def _until_s(self, loaded: LoadedTable) -> float:
        return self._replaced_at_s.get(loaded.version, 0.0) + self._limits.replaced_s


def _parts(versions: Iterable[LoadedTable]) -> dict[int, Table]:
    """The tables that versions are answered from, each once."""
    found: dict[int, Table] = {}
    for each in versions:
        for part in (each.whole, each.delta):
            if part is not None:
                found[id(part)] = part
    return found
