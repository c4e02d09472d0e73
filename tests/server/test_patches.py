"""Patches of a running server: laid over their base, switched to, rolled back, folded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.server.patches import PatchedDict, files_of, make_patch
from tests.server.tables import TABLE_NAME, make_table, place_table

ARGUMENTS = ["--port=0", "--grpc_port=-1", "--data_dir=data"]


@pytest.fixture
def workers() -> int:
    return 1


@pytest.fixture
def role(workers: int, tmp_path: Path, data_dir: Path) -> Iterator[Role]:
    """A server that started empty and folds nothing."""
    arguments = [*ARGUMENTS, f"--workers={workers}", "--fold_percent=0"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        yield role


@pytest.fixture
def client(role: Role) -> Iterator[ServerClient]:
    with ServerClient(role) as client:
        yield client


@pytest.fixture
def table(data_dir: Path) -> PatchedDict:
    return PatchedDict(data_dir)


@pytest.mark.parametrize("workers", [1, 2])
def test_patches_in_order(
    client: ServerClient, role: Role, table: PatchedDict, tmp_path: Path
) -> None:
    table.place_patch(11, sets=[*range(0, 300, 3), 2001, 2002], deletes=[*range(1, 300, 3), 2090])
    table.place_patch(12, sets=[*range(1, 100), 2003], deletes=[2001, *range(200, 220)])
    client.state("enable", version="10")
    for version, before in (("10_11", "10_10"), ("10_12", "10_11")):
        for _ in range(2):
            assert client.state("bg_load_patch", version=version) == (before, version, 2)
        table.check(client, before, pinned=False)
        table.check(client, version)
        for _ in range(2):
            assert client.state("bg_switch", version=version) == (version, "", 0)
        table.check(client, version, pinned=False)
        table.check(client, before)
    assert client.state("bg_load_patch", version="10_12") == ("10_12", "", 0)
    assert client.state("rollback") == ("10_11", "", 0)
    table.check(client, "10_11", pinned=False)
    assert client.state("rollback", version="10_12") == ("10_12", "", 0)
    table.check(client, "10_12", pinned=False)
    shown = {each["version"]: each for each in client.status()["versions"]}
    assert shown["10_12"]["whole_version"] == "10_10"
    assert shown["10_12"]["key_count"] == (table.passes["10_12"] != 0).sum()
    assert shown["10_12"]["delta_rows"] > shown["10_11"]["delta_rows"] > 200
    assert shown["10_12"]["deletion_count"] > 0
    assert client.status()["patches"]["laid_over"] == 2
    metrics = client.http.get("/metrics").text
    assert 'cube_server_patches_total{dict="test_dict"} 2.0' in metrics
    assert 'cube_server_delta_rows{dict="test_dict",role="current",version="10_12"}' in metrics
    role.stop()
    with (
        running("cube_server.main", ARGUMENTS, cwd=tmp_path) as again,
        ServerClient(again) as restarted,
    ):
        assert restarted.state("status") == ("10_12", "", 0)
        table.check(restarted, "10_12", pinned=False)


def test_a_late_server_is_brought_up_in_the_background(
    client: ServerClient, table: PatchedDict, data_dir: Path
) -> None:
    """Base and patches are loaded one over the other, and switched to once."""
    place_table(data_dir, 9)
    table.place_patch(11, sets=[1, 2])
    table.place_patch(12, sets=[2, 3])
    client.state("enable", version="9")
    assert client.state("bg_load_base", version="10") == ("9_9", "10_10", 2)
    assert client.state("bg_load_patch", version="10_11", previous="10_10")[1] == "10_11"
    assert client.state("bg_load_patch", version="10_12", previous="10_11")[1] == "10_12"
    assert client.state("bg_switch") == ("10_12", "", 0)
    table.check(client, "10_12", pinned=False)


def test_what_it_lies_over_may_be_on_disk_alone(client: ServerClient, table: PatchedDict) -> None:
    table.place_patch(11, sets=[1, 2], deletes=[8])
    assert client.state("bg_load_patch", version="10_11") == ("", "10_11", 2)
    table.check(client, "10_11")
    assert client.state("bg_unload") == ("", "", 0)
    table.place_patch(12, sets=[2, 3])
    assert client.state("bg_load_patch", version="10_12", previous="10_11")[1] == "10_12"
    table.check(client, "10_12")


def test_a_patch_after_a_rollback_lies_over_what_is_served(
    client: ServerClient, table: PatchedDict
) -> None:
    for patch in (11, 12):
        version = table.place_patch(patch, sets=[patch, 5])
        client.state("reload_patch", version=version)
    client.state("rollback")
    table.place_patch(13, sets=[13], over=11)
    client.state("reload_patch", version="10_13")
    table.check(client, "10_13", pinned=False)
    table.place_patch(14, sets=[14], over=11)
    client.state("reload_patch", version="10_14", previous="10_11")
    table.check(client, "10_14", pinned=False)


def test_reload_patch_reads_a_replaced_file(client: ServerClient, table: PatchedDict) -> None:
    table.place_patch(11, sets=[1, 2])
    assert client.state("reload_patch", version="10_11") == ("10_11", "", 0)
    del table.passes["10_11"]
    table.place_patch(11, sets=[7])
    assert client.state("bg_load_patch", version="10_11") == ("10_11", "", 0), "it is loaded"
    assert client.state("reload_patch", version="10_11") == ("10_11", "", 0)
    table.check(client, "10_11", pinned=False)


def test_files_of_patches_go_with_them(table: PatchedDict, tmp_path: Path, data_dir: Path) -> None:
    arguments = [*ARGUMENTS, "--fold_percent=0", "--keep_replaced_s=0"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        client.state("enable", version="10")
        for patch in (11, 12, 13):
            client.state("reload_patch", version=table.place_patch(patch, sets=[patch]))
        expected = [
            f"{version}/test_dict_part0.{kind}"
            for version, kinds in (("10_10", ["table"]), ("10_12", ["over_10_10", "table"]))
            for kind in kinds
        ]
        expected += [f"10_13/test_dict_part0.{kind}" for kind in ("over_10_10", "table")]
        assert files_of(data_dir) == [*expected, "VERSION"]
        place_table(data_dir, 14)
        place_table(data_dir, 15)
        client.state("enable", version="14")
        client.state("enable", version="15")
        assert files_of(data_dir) == [f"{v}_{v}/{TABLE_NAME}" for v in (14, 15)] + ["VERSION"]


class TestPatchesThatCannotBeLaid:
    """What was served before still is, and the answer says what is missing or wrong."""

    @pytest.fixture(autouse=True)
    def _serve_base(self, client: ServerClient, table: PatchedDict) -> None:
        client.state("enable", version="10")

    def refused(self, client: ServerClient, cmd: str, **fields: str) -> str:
        response = client.command(cmd, **fields)
        assert response.status_code == 500
        assert client.state("status") == ("10_10", "", 0)
        return response.text

    def test_without_its_base(self, client: ServerClient, data_dir: Path) -> None:
        make_patch(data_dir / "8_9" / TABLE_NAME, "8_9", [1])
        text = self.refused(client, "bg_load_patch", version="8_9")
        assert "patch 8_9 lies over 8_8, which is not loaded" in text
        assert "no table" in text

    def test_without_the_one_before(self, client: ServerClient, table: PatchedDict) -> None:
        table.place_patch(12, sets=[1])
        text = self.refused(client, "bg_load_patch", version="10_12", previous="10_11")
        assert "patch 10_12 lies over 10_11, which is not loaded" in text
        table.place_patch(11, sets=[1])
        text = self.refused(client, "reload_patch", version="10_12", previous="10_11")
        assert "10_11/test_dict_part0.table: is a patch, and not laid over anything" in text
        text = self.refused(client, "bg_load_patch", version="10_12", previous="9_9")
        assert "another base" in text

    def test_without_its_own_file(self, client: ServerClient) -> None:
        assert "no table" in self.refused(client, "bg_load_patch", version="10_11")

    def test_of_another_kind(self, client: ServerClient, data_dir: Path) -> None:
        make_table(data_dir / "10_11" / TABLE_NAME, 11, version="10_11")
        text = self.refused(client, "bg_load_patch", version="10_11")
        assert "is a whole table and no patch" in text
        assert "send bg_load_base" in self.refused(client, "bg_load_patch", version="10")
        assert "send bg_load_patch" in self.refused(client, "bg_load_base", version="10_11")

    def test_of_another_width(self, client: ServerClient, data_dir: Path) -> None:
        make_patch(data_dir / "10_11" / TABLE_NAME, "10_11", [1], dim=3)
        assert "value_bytes is 12" in self.refused(client, "bg_load_patch", version="10_11")
        assert not [name for name in files_of(data_dir) if "over" in name or "incoming" in name]

    def test_damaged(self, client: ServerClient, table: PatchedDict, data_dir: Path) -> None:
        path = data_dir / table.place_patch(11, sets=range(100)) / TABLE_NAME
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert "checksum" in self.refused(client, "bg_load_patch", version="10_11")
        assert "checksum" in client.status()["last_error"]

    def test_enabled_before_it_was_laid_over(
        self, client: ServerClient, table: PatchedDict
    ) -> None:
        table.place_patch(11, sets=[1])
        assert "with bg_load_patch" in self.refused(client, "enable", version="10_11")


def test_verify_tells_of_a_patch(client: ServerClient, table: PatchedDict) -> None:
    table.place_patch(11, sets=[1, 2], deletes=[3])
    reply = client.command("verify", version="10_11").json()
    assert (reply["kind"], reply["base_version"]) == ("delta", "10_10")
    assert (reply["key_count"], reply["deletion_count"]) == (3, 1)
