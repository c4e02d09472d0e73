"""What the trainer announces: base.txt, and patch.txt beside it where patches are deployed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import httpx

from cube_core.conf.transfer_conf import TransferConf
from cube_core.errors import DonefileError
from cube_transfer.donefile import (
    DonefileEntry,
    DonefileReading,
    donefile_address,
    patch_file_address,
)
from cube_transfer.together import all_together
from cube_transfer.watch import DonefileWatch


@dataclass(frozen=True)
class ListedPatches:
    """The patches whose base is known, and why others cannot be used."""

    entries: tuple[DonefileEntry, ...] = ()
    errors: tuple[DonefileError, ...] = ()


class Donefiles:
    """Keeps both donefiles read, and sets `changed` when one says more.

    Raises:
        ConfError: as `DonefileWatch`.
    """

    def __init__(self, conf: TransferConf, http: httpx.AsyncClient) -> None:
        self.changed = asyncio.Event()
        address = donefile_address(conf.donefile_address)
        self.bases = DonefileWatch(address, conf.poll_interval_ms, http, self.changed)
        self.patches: DonefileWatch | None = None
        """None where bases alone are deployed."""
        self._listed: _Listed | None = None
        if conf.mode == "base_delta":
            self.patches = DonefileWatch(
                patch_file_address(address),
                conf.poll_interval_ms,
                http,
                self.changed,
                of_patches=True,
            )

    async def run(self) -> None:
        """Watches until cancelled."""
        watches = [each for each in (self.bases, self.patches) if each is not None]
        await all_together(watch.run() for watch in watches)

    def listed_patches(self, known_bases: Mapping[str, str]) -> ListedPatches:
        """The patches with their bases looked up by key.

        Args:
            known_bases: id by key, of bases that base.txt may name no more; what it names counts
                before them.
        """
        if self.patches is None:
            return ListedPatches()
        # Asked for with every status and every pass, where it is mostly as it was.
        if self._listed is None or not self._listed.is_of(
            self.bases.reading, self.patches.reading, known_bases
        ):
            listed = _listed(self.bases.reading, self.patches.reading, known_bases)
            self._listed = _Listed(
                self.bases.reading, self.patches.reading, dict(known_bases), listed
            )
        return self._listed.patches


@dataclass(frozen=True)
class _Listed:
    """What was listed, and of what."""

    bases_reading: DonefileReading
    patches_reading: DonefileReading
    known_bases: Mapping[str, str]
    patches: ListedPatches

    def is_of(
        self,
        bases_reading: DonefileReading,
        patches_reading: DonefileReading,
        known_bases: Mapping[str, str],
    ) -> bool:
        return (
            self.bases_reading is bases_reading
            and self.patches_reading is patches_reading
            and self.known_bases == known_bases
        )


def _listed(
    bases_reading: DonefileReading,
    patches_reading: DonefileReading,
    known_bases: Mapping[str, str],
) -> ListedPatches:
    bases = {**known_bases, **{each.key: each.id for each in bases_reading.entries}}
    entries: list[DonefileEntry] = []
    errors: list[DonefileError] = []
    for entry in patches_reading.entries:
        try:
            entries.append(_with_base(entry, bases))
        except DonefileError as error:
            errors.append(error)
    return ListedPatches(tuple(entries), tuple(errors))


def _with_base(entry: DonefileEntry, bases: Mapping[str, str]) -> DonefileEntry:
    base = bases.get(entry.key)
    if base is None:
        raise DonefileError(f"{entry.where}: no base has the key {entry.key!r}")
    if base == entry.id:
        raise DonefileError(f"{entry.where}: id {entry.id} is that of its base")
    found = replace(entry, base=base)
    found.require_version_said()
    return found
