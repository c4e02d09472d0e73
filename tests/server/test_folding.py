"""Patches folded into their base: nobody who reads notices, and nothing grows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cube_core._native import Seeker, Table
from cube_core.versions import Version
from cube_proto import dict_pb2
from cube_server.loaded import LoadedTable
from cube_server.opening import TableOpener
from cube_server.replaced import KeepLimits
from cube_server.store import DataDirectory
from cube_server.versions import DictVersions
from tests.processes import running
from tests.server.client import ServerClient
from tests.server.patches import ALL_KEYS, PatchedDict, files_of
from tests.server.tables import KEY_COUNT, TABLE_NAME
from tests.waiting import wait_until

ARGUMENTS = ["--port=0", "--grpc_port=-1", "--data_dir=data", "--fold_percent=5"]
ARGUMENTS += ["--keep_replaced_s=1"]


@pytest.fixture
def table(data_dir: Path) -> PatchedDict:
    return PatchedDict(data_dir)


@pytest.mark.parametrize(
    "flags", [["--workers=1"], ["--workers=2", "--in_mem=false"]], ids=["memory", "mapped files"]
)
def test_many_patches_are_folded_under_load(
    table: PatchedDict, tmp_path: Path, data_dir: Path, flags: list[str]
) -> None:
    (data_dir / "VERSION").write_text("10_10")
    patches = range(11, 31)
    stop = threading.Event()
    failures: list[BaseException] = []

    def read(client: ServerClient) -> None:
        """Every answer is of one version, whole, whatever is folded meanwhile."""
        with ServerClient.to(client.endpoint) as own:
            try:
                while not stop.is_set():
                    table.check_answer(own.seek(ALL_KEYS.tolist(), version_required=True))
            except BaseException as error:
                failures.append(error)

    with (
        running("cube_server.main", [*ARGUMENTS, *flags], cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        readers = [threading.Thread(target=read, args=(client,)) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            for patch in patches:
                version = table.place_patch(
                    patch, sets=range(patch, KEY_COUNT, 61), deletes=range(patch + 7, 2100, 70)
                )
                client.state("bg_load_patch", version=version)
                client.state("bg_switch", version=version)
                assert not failures
            wait_until(lambda: not client.status()["patches"]["folding"])
            wait_until(lambda: client.status()["replaced"]["versions"] == [])
            table.check(client, version, pinned=False)
        finally:
            stop.set()
            for reader in readers:
                reader.join()
        assert not failures
        status = client.status()
        assert status["patches"]["folds"] >= 3
        assert status["patches"]["folds_failed"] == 0
        assert status["versions"][0]["delta_rows"] <= KEY_COUNT * 0.05 + 2 * 65
        assert client.state("rollback") == ("10_29", "", 0)
        table.check(client, "10_29", pinned=False)
        client.state("rollback", version=version)
        metrics = client.http.get("/metrics").text
        assert (
            f'cube_server_folds_total{{dict="test_dict"}} {status["patches"]["folds"]}' in metrics
        )
    # The two last versions, what they lie over, and what came of none.
    directories = {name.partition("/")[0] for name in files_of(data_dir) if "/" in name}
    assert len(directories) <= 4
    assert not [name for name in files_of(data_dir) if "incoming" in name]
    with (
        running("cube_server.main", ARGUMENTS, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        table.check(client, version, pinned=False)


class GatedOpener(TableOpener):
    """Lets a fold wait, or fail, where it would write."""

    def __init__(self, store: DataDirectory) -> None:
        super().__init__(store, in_memory=True, shared=False)
        self.gate = threading.Event()
        self.fold_began = threading.Event()
        self.failure: Exception | None = None
        self.waits_to_open = False

    def merge(self, version: Version, tables: Sequence[Table]) -> Path:
        if tables[0].kind == "whole" and not self.waits_to_open:
            self._wait()
        return super().merge(version, tables)

    def open_folded(self, version: Version, placed: Path) -> LoadedTable:
        if self.waits_to_open:
            self._wait()
        return super().open_folded(version, placed)

    def _wait(self) -> None:
        self.fold_began.set()
        if self.failure is not None:
            raise self.failure
        assert self.gate.wait(20)


class Machine:
    """A dict's state machine, in the process."""

    def __init__(self, data_dir: Path, keep_versions: int = 3, replaced_s: float = 0) -> None:
        self.seeker = Seeker(10_000, 1 << 24)
        store = DataDirectory(data_dir)
        self.opener = GatedOpener(store)
        self.versions = DictVersions(
            store,
            self._publish,
            self.opener,
            keep=KeepLimits(keep_versions, replaced_s),
            fold_percent=5,
            want_timeout_s=1,
        )

    async def _publish(self, current: LoadedTable | None, others: Sequence[LoadedTable]) -> None:
        assert current is not None
        self.seeker.set_tables(current.table, [each.table for each in others])

    def seek(self, keys: list[int], **fields: object) -> dict_pb2.DictResponse:
        request = dict_pb2.DictRequest(keys=keys, **fields)  # type: ignore[arg-type]
        response = self.seeker.seek(request.SerializeToString())
        return dict_pb2.DictResponse.FromString(response)

    async def switch_to(self, version: str) -> None:
        await self.versions.load_patch_background(Version.parse(version))
        await self.versions.switch()

    async def folded(self) -> None:
        while (task := self.versions.fold_task) is not None and not task.done():
            await asyncio.wait_for(asyncio.shield(task), 20)


def test_patches_that_come_during_a_fold_lie_over_what_it_makes(
    table: PatchedDict, data_dir: Path
) -> None:
    async def run() -> None:
        machine = Machine(data_dir)
        await machine.versions.enable(Version.parse("10"))
        await machine.switch_to(table.place_patch(11, sets=range(50), deletes=[60]))
        await machine.switch_to(table.place_patch(12, sets=range(40, 150), deletes=[0]))
        await asyncio.to_thread(machine.opener.fold_began.wait, 20)
        for patch in (13, 14):
            await machine.switch_to(
                table.place_patch(patch, sets=[patch, 60], deletes=[100 + patch])
            )
        assert machine.versions.folding.under_way is not None
        machine.opener.gate.set()
        await machine.folded()
        for version in ("10_12", "10_13", "10_14"):
            table.check(machine, version)  # type: ignore[arg-type]
        loaded = machine.versions.served
        assert {each.whole.version for each in loaded} == {"10_12"}
        # 13 and 14, 60, 113 and 114.
        assert [each.delta_rows for each in loaded] == [5, 3, 0]
        assert machine.versions.folding.counts.done == 1
        await machine.versions.stop(1)
        again = Machine(data_dir)
        await again.versions.start()
        table.check(again, "10_14", pinned=False)  # type: ignore[arg-type]

    asyncio.run(run())
    assert "10_12/test_dict_part0.folded" in files_of(data_dir)
    assert "10_14/test_dict_part0.over_10_12" in files_of(data_dir)
    assert "10_14/test_dict_part0.over_10_10" not in files_of(data_dir)


def test_versions_that_were_replaced_stay_over_the_table_that_they_have(
    table: PatchedDict, data_dir: Path
) -> None:
    async def run() -> None:
        machine = Machine(data_dir, keep_versions=2, replaced_s=60)
        await machine.versions.enable(Version.parse("10"))
        await machine.switch_to(table.place_patch(11, sets=range(50), deletes=[60]))
        await machine.switch_to(table.place_patch(12, sets=range(40, 150), deletes=[0]))
        await asyncio.to_thread(machine.opener.fold_began.wait, 20)
        for patch in (13, 14, 15):
            await machine.switch_to(table.place_patch(patch, sets=[patch, 60]))
        machine.opener.gate.set()
        await machine.folded()
        for version in table.passes:
            table.check(machine, version)  # type: ignore[arg-type]
        wholes = {str(each.version): each.whole.version for each in machine.versions.served}
        assert wholes == {
            "10_15": "10_12",
            "10_14": "10_12",
            "10_13": "10_10",
            "10_12": "10_12",
            "10_11": "10_10",
            "10_10": "10_10",
        }
        base = machine.versions.served[-1].whole
        assert machine.versions.replaced_bytes > base.memory_bytes
        await machine.versions.stop(1)

    asyncio.run(run())


def test_what_came_from_a_rollback_meanwhile_stays_as_it_is(
    table: PatchedDict, data_dir: Path
) -> None:
    async def run() -> None:
        machine = Machine(data_dir)
        await machine.versions.enable(Version.parse("10"))
        await machine.switch_to(table.place_patch(11, sets=range(50)))
        await machine.switch_to(table.place_patch(12, sets=range(40, 150)))
        await asyncio.to_thread(machine.opener.fold_began.wait, 20)
        await machine.versions.rollback()
        await machine.switch_to(table.place_patch(13, sets=[3], over=11))
        machine.opener.gate.set()
        await machine.folded()
        for version in ("10_11", "10_12", "10_13"):
            table.check(machine, version)  # type: ignore[arg-type]

    asyncio.run(run())


@pytest.mark.parametrize("when", ["it is written", "it is read"])
def test_a_version_that_is_laid_anew_during_its_fold_stays_as_it_is(
    table: PatchedDict, data_dir: Path, when: str
) -> None:
    async def run() -> None:
        machine = Machine(data_dir)
        machine.opener.waits_to_open = when == "it is read"
        await machine.versions.enable(Version.parse("10"))
        await machine.switch_to(table.place_patch(11, sets=range(150)))
        await asyncio.to_thread(machine.opener.fold_began.wait, 20)
        (data_dir / "10_11" / TABLE_NAME).unlink()
        version = table.place_patch(11, sets=range(500, 700), over=10)
        await machine.versions.enable_patch(Version.parse(version), Version.parse("10"))
        machine.opener.gate.set()
        await machine.folded()
        table.check(machine, version, pinned=False)  # type: ignore[arg-type]
        assert "meanwhile" in machine.versions.folding.counts.last_error
        await machine.versions.stop(1)
        assert [name for name in files_of(data_dir) if name.startswith(version)] == [
            f"{version}/{Path(TABLE_NAME).stem}.over_10_10",
            f"{version}/{TABLE_NAME}",
        ]
        again = Machine(data_dir)
        again.opener.gate.set()
        await again.versions.start()
        table.check(again, version, pinned=False)  # type: ignore[arg-type]
        await again.folded()
        table.check(again, version, pinned=False)  # type: ignore[arg-type]

    asyncio.run(run())


@pytest.mark.parametrize("failure", [OSError, MemoryError])
def test_a_fold_that_fails_is_told_and_tried_again(
    table: PatchedDict, data_dir: Path, failure: type[Exception]
) -> None:
    async def run() -> None:
        machine = Machine(data_dir)
        machine.opener.gate.set()
        machine.opener.failure = failure("no room is left")
        await machine.versions.enable(Version.parse("10"))
        await machine.switch_to(table.place_patch(11, sets=range(150)))
        await machine.folded()
        counts = machine.versions.folding.counts
        assert (counts.done, counts.failed) == (0, 1)
        assert counts.last_error == "no room is left"
        table.check(machine, "10_11", pinned=False)  # type: ignore[arg-type]
        machine.opener.failure = None
        await machine.switch_to(table.place_patch(12, sets=[7]))
        await machine.folded()
        assert (counts.done, counts.last_error) == (1, "")
        table.check(machine, "10_12", pinned=False)  # type: ignore[arg-type]

    asyncio.run(run())


class FoldedMeanwhile(DataDirectory):
    """Folds a version right after it was looked at for the nth time."""

    def __init__(self, root: Path, looks: int) -> None:
        super().__init__(root)
        self.looks = looks

    def laid_over(self, version: Version) -> list[tuple[Version, Path]]:
        found = super().laid_over(version)
        self.looks -= 1
        if self.looks == 0:
            opener = TableOpener(DataDirectory(self.root), in_memory=True, shared=False)
            parts = opener.open(version)
            assert parts.delta is not None
            opener.place_folded(version, opener.merge(version, [parts.whole, parts.delta]))
        return found


@pytest.mark.parametrize("looks", [1, 2])
def test_a_version_that_is_folded_while_it_is_opened(
    table: PatchedDict, data_dir: Path, looks: int
) -> None:
    version = Version.parse(table.place_patch(11, sets=range(50), deletes=[60]))
    opener = TableOpener(DataDirectory(data_dir), in_memory=True, shared=False)
    base = opener.open(Version.parse("10"))
    opener.lay_over(version, base.whole, [opener.open_patch(version)])
    machine = Machine(data_dir)
    store = FoldedMeanwhile(data_dir, looks)
    loaded = TableOpener(store, in_memory=True, shared=False).open(version)
    assert (store.looks <= 0, loaded.delta) == (True, None)
    machine.seeker.set_tables(loaded.table)
    table.check(machine, str(version), pinned=False)  # type: ignore[arg-type]
