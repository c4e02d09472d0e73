"""Versions that were replaced: which stay, and what they may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube_core.versions import Version
from cube_server import replaced
from cube_server.loaded import LoadedTable
from cube_server.opening import TableOpener
from cube_server.replaced import KeepLimits, ReplacedVersions
from cube_server.store import DataDirectory
from tests.server.patches import PatchedDict
from tests.server.tables import place_table


class Served:
    """What a server has switched to, with as much as it keeps of it."""

    def __init__(self, data_dir: Path, keep: KeepLimits) -> None:
        self.opener = TableOpener(DataDirectory(data_dir), in_memory=True, shared=False)
        self.replaced = ReplacedVersions(keep)
        self.loaded: list[LoadedTable] = []

    def switch_to(self, version: str, over: LoadedTable | None = None) -> LoadedTable:
        parsed = Version.parse(version)
        if over is None:
            new = self.opener.open(parsed)
        else:
            before = [] if over.delta is None else [over.delta]
            deltas = [*before, self.opener.open_patch(parsed)]
            new = self.opener.lay_over(parsed, over.whole, deltas)
        self.replaced.note(self.loaded[0] if self.loaded else None, new)
        others = [each for each in self.loaded if each.version != parsed]
        self.loaded = self.replaced.kept([new, *others])
        return new

    @property
    def versions(self) -> list[str]:
        return [str(each.version) for each in self.loaded]


def test_bases_take_no_more_than_the_limit_and_one_whole_table(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(data_dir, KeepLimits(versions=2, replaced_s=60))
    for base in range(1, 4):
        place_table(data_dir, base)
        last = served.switch_to(f"{base}_{base}")
    table_bytes = last.whole.memory_bytes
    for tables_max, kept in ((2, ["6", "5", "4", "3"]), (1, ["6", "5", "4"])):
        monkeypatch.setattr(replaced, "REPLACED_BYTES_MAX", (tables_max - 1) * table_bytes)
        for base in range(3, 7):
            place_table(data_dir, base)
            served.switch_to(f"{base}_{base}")
        assert served.versions == [f"{base}_{base}" for base in kept]
        assert served.replaced.extra_bytes(served.loaded) == tables_max * table_bytes


def test_patches_over_one_table_take_what_they_changed(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = PatchedDict(data_dir)
    served = Served(data_dir, KeepLimits(versions=2, replaced_s=60))
    monkeypatch.setattr(replaced, "REPLACED_MAX", 5)
    newest = served.switch_to("10_10")
    for patch in range(11, 20):
        newest = served.switch_to(table.place_patch(patch, sets=[patch]), newest)
    assert served.versions == [f"10_{patch}" for patch in range(19, 12, -1)]
    deltas = [each.delta.memory_bytes for each in served.loaded[2:] if each.delta is not None]
    assert len(deltas) == 5
    assert served.replaced.extra_bytes(served.loaded) == sum(deltas)
    assert sum(deltas) < newest.whole.memory_bytes


def test_those_whose_time_is_over_go_and_the_others_stay_for_ever(data_dir: Path) -> None:
    served = Served(data_dir, KeepLimits(versions=2, replaced_s=0))
    for base in range(1, 5):
        place_table(data_dir, base)
        served.switch_to(f"{base}_{base}")
    assert served.versions == ["4_4", "3_3"]
    assert served.replaced.left_s(served.loaded) == 0.0
    # Going back and forth leaves nobody out.
    served.switch_to("3_3")
    assert served.versions == ["3_3", "4_4"]
