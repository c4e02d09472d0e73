"""Patches folded into their base, while both are served: what is laid over a table stays small."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cube_core._native import Table
from cube_core.errors import ControlError
from cube_core.versions import Version
from cube_server.background import in_background
from cube_server.loaded import LoadedTable
from cube_server.opening import TableOpener

log = logging.getLogger(__name__)

DELTA_ROWS_MAX = 200_000
"""Rows that may lie over a table of any size. What tells them from the base's is asked at each
lookup: less than half a megabyte of it stays in the second cache of a core, two do not, and then a
lookup takes up to 1.5 times as long as in the base alone. Each patch is merged with those before
it, too, and that must not take longer and longer."""


@dataclass
class FoldCounts:
    """What became of folds.

    Attributes:
        last_s: how long the last one took; 0.0 before any.
        last_error: why the last one failed; "" when it did not.
    """

    done: int = 0
    failed: int = 0
    last_s: float = 0.0
    last_error: str = ""


class Fold:
    """One fold under way. All methods but `note_patch` raise ControlError for what cannot be
    written or read."""

    def __init__(self, opener: TableOpener, loaded: LoadedTable, delta: Table) -> None:
        self.version = loaded.version
        self.started_s = time.monotonic()
        self._opener = opener
        self._parts = [loaded.whole, delta]
        # For the version and each one laid over it since: the patches that it took.
        self._shipped_since: dict[Version, list[Table]] = {loaded.version: []}

    def note_patch(self, version: Version, previous: Version, shipped: Table) -> None:
        """A patch was laid over `previous` meanwhile."""
        if previous in self._shipped_since:
            self._shipped_since[version] = [*self._shipped_since[previous], shipped]
        else:
            # What it was before, if anything, it is no more.
            self._shipped_since.pop(version, None)

    async def write(self) -> Path:
        """Writes the whole table, which takes a while, under a temporary name."""
        return await in_background(lambda: self._opener.merge(self.version, self._parts))

    async def place(self, written: Path) -> Path:
        """Moves it into place, while nothing is laid over anything."""
        if self.version not in self._shipped_since:
            await in_background(lambda: self._opener.discard(written))
            raise self._laid_anew_meanwhile()
        return await in_background(lambda: self._opener.place_folded(self.version, written))

    async def open(self, placed: Path) -> LoadedTable:
        """Reads it, which takes a while too."""
        return await in_background(lambda: self._opener.open_folded(self.version, placed))

    async def laid_anew(
        self, whole: LoadedTable, loaded: Collection[LoadedTable]
    ) -> dict[Version, LoadedTable]:
        """The folded version, and those of `loaded` that came on top of it meanwhile, over the new
        whole table. Nothing is laid over anything meanwhile."""
        if self.version not in self._shipped_since:
            folded = Path(whole.whole.path)
            await in_background(lambda: self._opener.discard(folded))
            raise self._laid_anew_meanwhile()
        made = {self.version: whole}
        for each in loaded:
            if shipped := self._shipped_since.get(each.version):
                made[each.version] = await in_background(
                    partial(self._opener.lay_over, each.version, whole.whole, shipped)
                )
        return made

    def _laid_anew_meanwhile(self) -> ControlError:
        return ControlError(f"{self.version} was laid over another version meanwhile")

    def forget(self) -> None:
        """Lets go of the tables that were folded; giving back gigabytes takes a while."""
        self._parts.clear()
        self._shipped_since.clear()


class Folding:
    """Says when the current version is to be folded; one fold at a time.

    Args:
        percent: of the keys of a whole table that may lie over it as changed ones; 0: any number.
    """

    def __init__(self, opener: TableOpener, percent: float) -> None:
        self.counts = FoldCounts()
        self.under_way: Fold | None = None
        self._opener = opener
        self._percent = percent

    def begin_if_due(self, loaded: LoadedTable) -> Fold | None:
        """A fold of this version, when so much lies over its whole table and none is under way."""
        if self.under_way is not None or self._percent == 0 or loaded.delta is None:
            return None
        rows_max = min(DELTA_ROWS_MAX, loaded.whole.key_count * self._percent / 100)
        if loaded.delta.key_count <= rows_max:
            return None
        self.under_way = Fold(self._opener, loaded, loaded.delta)
        return self.under_way

    def note_patch(self, version: Version, previous: Version, shipped: Table) -> None:
        """A patch was laid over `previous`."""
        if self.under_way is not None:
            self.under_way.note_patch(version, previous, shipped)

    def end(self, fold: Fold, error: Exception | None = None) -> None:
        """A fold is done, or failed."""
        self.under_way = None
        took_s = time.monotonic() - fold.started_s
        if error is None:
            self.counts.done += 1
            self.counts.last_s = took_s
            self.counts.last_error = ""
            log.info("folded %s in %.3f s", fold.version, took_s)
        else:
            self.counts.failed += 1
            self.counts.last_error = str(error)
            log.warning("%s is served unfolded: %s", fold.version, error)
