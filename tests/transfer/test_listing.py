"""Which pass is next: newest base first, then every patch of it in order, over nothing left out."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from cube_builder.job import REPORT_NAME, BuildReport, ShardReport
from cube_core.conf.transfer_conf import TransferConf
from cube_core.versions import Version
from cube_transfer.control_client import ServersHttp
from cube_transfer.daemon import Daemon
from cube_transfer.donefile import parse_donefile
from cube_transfer.donefiles import Donefiles, ListedPatches
from cube_transfer.listing import new_bases, next_patch, outdated_patches, waiting_patches
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage, State
from cube_transfer.table_links import TableLinks


class Site:
    """Donefiles that are read without being watched, and a state in which passes are noted."""

    def __init__(self, root: Path) -> None:
        conf = TransferConf(
            dict_name="ctr",
            mode="base_delta",
            wget_port=8098,
            donefile_address=str(root),
            output_address=str(root / "output"),
            tmp_address=str(root / "tmp"),
            shard_num=1,
        )
        self.state = State(root / "state")
        http = httpx.AsyncClient()
        self.daemon = Daemon(
            Settings(conf, TableLinks("http://127.0.0.1", b"key")), self.state, http, ServersHttp()
        )

    def list_bases(self, *lines: dict[str, Any]) -> None:
        self.donefiles.bases.reading = parse_donefile(_lines(lines), "/base.txt")

    def list_patches(self, *lines: dict[str, str]) -> None:
        assert self.donefiles.patches is not None
        reading = parse_donefile(_lines(lines), "/patch.txt", of_patches=True)
        self.donefiles.patches.reading = reading

    @property
    def donefiles(self) -> Donefiles:
        return self.daemon.donefiles

    def listed(self) -> ListedPatches:
        return self.daemon.listed_patches()

    async def take(self) -> str:
        """The version that is to be deployed next; "" for none."""
        record = await self.daemon._take_new()
        return record.version if record else ""

    async def deploy(self, stage: Stage = Stage.DONE, **changes: str) -> PassRecord:
        """Takes the next pass and notes how it ended."""
        record = await self.daemon._take_new()
        assert record is not None
        record = record.model_copy(update={"stage": stage, **changes})
        self.state.save(record, wanted=record.version if stage.is_served else None)
        return record

    def bad_lines(self, file: str) -> list[str]:
        return [str(error) for error in self.daemon.bad_lines()[file]]

    def waiting(self) -> dict[str, str]:
        found = waiting_patches(self.listed().entries, self.state, None)
        return {str(entry.version): reason for entry, reason in found}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.state.close()


def _lines(lines: tuple[dict[str, Any], ...]) -> bytes:
    return b"".join(json.dumps({"input": "/pass", **line}).encode() + b"\n" for line in lines)


def _base(id: str, key: str = "") -> dict[str, Any]:
    return {"id": id, "key": key or id}


def _patch(id: str, key: str, **fields: str) -> dict[str, str]:
    return {"id": id, "key": key, **fields}


async def test_patches_follow_their_base_in_order(site: Site) -> None:
    site.list_bases(_base("9"), _base("10", key="ten"))
    site.list_patches(_patch("11", "ten"), _patch("12", "ten"))
    assert [str(each.version) for each in site.listed().entries] == ["10_11", "10_12"]
    assert site.waiting() == {
        "10_11": "its base 10_10, which is not served",
        "10_12": "its base 10_10, which is not served",
    }
    assert (await site.deploy()).version == "10_10"
    first = await site.deploy()
    assert (first.id, first.version, first.previous) == ("10_11", "10_11", "10_10")
    assert site.waiting() == {"10_12": "its turn"}
    second = await site.deploy()
    assert (second.version, second.previous) == ("10_12", "10_11")
    assert await site.take() == ""
    assert [each.version for each in site.state.stack_of("10_12")] == ["10_10", "10_11", "10_12"]
    assert site.waiting() == {}


async def test_no_patch_is_laid_over_a_gap(site: Site) -> None:
    site.list_bases(_base("10"))
    site.list_patches(_patch("11", "10"), _patch("12", "10"), _patch("13", "10"))
    await site.deploy()
    await site.deploy(Stage.FAILED, error="no such directory")
    assert await site.take() == ""
    words = "10_11, which failed: correct its line, take it out, or retry"
    assert site.waiting() == {"10_12": words, "10_13": words}
    # A line that is corrected is taken anew, and one that is taken out is missed by nobody.
    site.list_patches(_patch("11", "10", input="/other"), _patch("12", "10"))
    assert (await site.deploy(Stage.FAILED)).input == "/other"
    assert await site.take() == ""
    site.list_patches(_patch("12", "10"))
    record = await site.deploy()
    assert (record.version, record.previous) == ("10_12", "10_10")


async def test_a_new_base_comes_before_patches_of_the_old_one(site: Site) -> None:
    site.list_bases(_base("10"))
    site.list_patches(_patch("11", "10"))
    await site.deploy()
    site.list_bases(_base("10"), _base("20"))
    site.list_patches(_patch("11", "10"), _patch("21", "20"))
    # One that fails leaves the old base and its patches in their places.
    assert (await site.deploy(Stage.FAILED)).version == "20_20"
    assert site.waiting()["20_21"] == "its base 20_20, which is not served"
    assert (await site.deploy()).version == "10_11"

    site.list_bases(_base("10"), _base("20"), _base("30"))
    site.list_patches(_patch("11", "10"), _patch("21", "20"), _patch("12", "10"))
    assert (await site.deploy()).version == "30_30"
    assert outdated_patches(site.listed().entries, site.state) != []
    assert await site.take() == ""
    skipped = site.state.pass_of(Version("10", "12"))
    assert skipped is not None
    assert skipped.stage is Stage.SUPERSEDED
    assert skipped.error == "skipped: its base 10_10 is not current any more"
    assert outdated_patches(site.listed().entries, site.state) == []
    assert site.waiting() == {}


async def test_a_patch_that_gave_way_is_taken_again_when_the_base_is_none(site: Site) -> None:
    site.list_bases(_base("10"))
    site.list_patches(_patch("11", "10"), _patch("12", "10"))
    await site.deploy()
    await site.deploy(Stage.SUPERSEDED)
    site.list_bases(_base("10"), _base("20"))
    await site.deploy(Stage.FAILED)
    record = await site.deploy()
    assert (record.version, record.previous) == ("10_11", "10_10")


async def test_a_patch_after_a_rollback_lies_over_all_before_it(site: Site) -> None:
    site.list_bases(_base("10"))
    site.list_patches(_patch("11", "10"), _patch("12", "10"))
    for _ in range(3):
        await site.deploy()
    site.state.save(wanted="10_11")
    # What was rolled back from is not deployed again; what follows it was trained on it.
    assert await site.take() == ""
    site.list_patches(_patch("11", "10"), _patch("12", "10"), _patch("13", "10"))
    record = await site.deploy()
    assert (record.version, record.previous) == ("10_13", "10_12")


def test_patches_whose_base_cannot_be_told(site: Site) -> None:
    site.list_bases(_base("10"))
    site.list_patches(
        _patch("11", "ten"), _patch("10", "10"), _patch("12", "10", version="9_12"), _base("13")
    )
    assert [str(error) for error in site.listed().errors] == [
        "/patch.txt:1: no base has the key 'ten'",
        "/patch.txt:2: id 10 is that of its base",
        "/patch.txt:3: version '9_12' of this patch must be, here 10_12",
        "/patch.txt:4: no base has the key '13'",
    ]


async def test_a_base_is_remembered_when_its_line_is_gone(site: Site) -> None:
    site.list_bases(_base("10", key="ten"))
    await site.deploy()
    site.list_bases()
    site.list_patches(_patch("11", "ten"))
    assert await site.take() == "10_11"


async def test_a_donefile_that_took_the_place_of_another_does_not_go_back(site: Site) -> None:
    site.list_bases(_base("10"))
    await site.deploy()
    site.list_bases(_base("8"), _base("9"))
    assert await site.take() == ""
    assert not site.daemon._newer_listed(site.state.records()[0])
    assert site.bad_lines("base") == [
        f"/base.txt:{line}: out of order: id {id} is below id 10, which was served before"
        for line, id in ((1, 8), (2, 9))
    ]
    # What is newer is taken, whatever is above it; so is what was deployed before, as known.
    site.list_bases(_base("8"), _base("11"), _base("12"))
    assert len(site.bad_lines("base")) == 1
    await site.deploy()
    assert site.state.wanted == "12_12"
    site.list_bases(_base("10"), _base("11"))
    assert (await site.take(), site.bad_lines("base")) == ("", [])
    # Ids that are no numbers have no order but that of the lines.
    site.list_bases(_base("b-1"))
    assert (await site.deploy()).version == "b-1_b-1"
    site.list_bases(_base("7"))
    assert (await site.take(), len(site.bad_lines("base"))) == ("", 1)


async def test_ids_count_from_what_was_gone_back_to(site: Site) -> None:
    site.list_bases(_base("10"))
    await site.deploy()
    site.list_bases(_base("20261130"))
    await site.deploy()
    # An id by mistake, which the operator goes back from and takes out of the file.
    (mistaken,) = (each for each in site.state.records() if each.id == "20261130")
    site.state.save(mistaken.model_copy(update={"rolled_back": True}), wanted="10_10")
    site.list_bases(_base("9"), _base("11"))
    assert site.bad_lines("base") == [
        "/base.txt:1: out of order: id 9 is below id 10, which was served before"
    ]
    assert await site.take() == "11_11"


async def test_patches_do_not_go_back_either(site: Site) -> None:
    # A patch may have any id, compared with that of its base.
    site.list_bases(_base("10"))
    await site.deploy()
    site.list_patches(_patch("5", "10"))
    assert (await site.deploy()).version == "10_5"
    site.list_patches(_patch("3", "10"), _patch("6", "10"))
    assert (await site.deploy()).version == "10_6"
    site.list_patches(_patch("4", "10"))
    assert await site.take() == ""
    assert site.bad_lines("patch") == [
        "/patch.txt:1: out of order: id 4 is below id 6, which was served before"
    ]
    assert site.waiting() == {}


def test_ids_of_patches_grow_base_by_base() -> None:
    lines = _lines((_patch("2", "a"), _patch("1", "b"), _patch("2", "b"), _patch("1", "a")))
    reading = parse_donefile(lines + b'{"id":"3","input":"/p"}\n', "/patch.txt", of_patches=True)
    assert [(each.key, each.id) for each in reading.entries] == [("a", "2"), ("b", "1"), ("b", "2")]
    assert [str(error) for error in reading.errors] == [
        "/patch.txt:4: out of order: id 1 is below id 2 of line 1",
        "/patch.txt:5: key: a patch needs the key of its base",
    ]


def test_a_base_does_not_look_new_after_a_thousand_patches(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cube_transfer import state as state_module

    monkeypatch.setattr(state_module, "RECORDS_KEPT", 5)
    site.list_bases(_base("10"))
    (base,) = new_bases(site.donefiles.bases.reading.entries, site.state)
    site.state.save(PassRecord.of(base, 1, stage=Stage.DONE), wanted="10_10")
    for number in range(11, 31):
        site.list_patches(*(_patch(str(each), "10") for each in range(11, number + 1)))
        entry = next_patch(site.listed().entries, site.state)
        newest = site.state.newest_of_base("10")
        assert entry is not None
        assert newest is not None
        record = PassRecord.of(entry, number, previous=newest.version, stage=Stage.DONE)
        site.state.save(record, wanted=record.version)
    assert new_bases(site.donefiles.bases.reading.entries, site.state) == ()
    assert len(site.state.stack_of("10_30")) == 21
    site.list_patches()
    # Without what is served on top of them, the oldest go.
    (other,) = parse_donefile(_lines((_base("40"),)), "/base.txt").entries
    site.state.save(PassRecord.of(other, 40, stage=Stage.DONE), wanted="40_40")
    assert [each.version for each in site.state.records()][-1] == "10_10"
    assert len(site.state.records()) == 7


async def test_a_failed_pass_with_a_number_that_is_none_is_not_repaired_by_being_read_again(
    tmp_path: Path, site: Site
) -> None:
    """Python writes NaN for the loss of a training that went wrong, of which the pass may fail."""
    line = {**_base("10"), "loss": math.nan}
    site.list_bases(line)
    await site.deploy(Stage.FAILED)
    assert await site.take() == ""
    site.list_bases(line)
    assert await site.take() == ""
    site.state.close()
    site.state = State(tmp_path / "state")
    assert not new_bases(site.donefiles.bases.reading.entries, site.state)


async def test_tables_that_cannot_be_looked_at_end_no_daemon(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the server of a network file system was changed for another."""
    site.list_bases(_base("10"))
    await site.deploy()
    shard = ShardReport(0, "ctr_part0.table", 1, 0, 1, 0)
    built = tmp_path / "output" / "10_10"
    built.mkdir(parents=True)
    (built / REPORT_NAME).write_text(BuildReport("ctr", "10_10", 1, 4, 1, (shard,)).to_json())

    def stale(path: Path) -> bool:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "is_file", stale)
        await site.daemon._reconcile()
    assert "Stale file handle" in site.daemon.reconcile_error
    assert "ctr_part0.table" in site.daemon.reconcile_error
