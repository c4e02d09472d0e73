"""Versions of a running server: loaded beside what is served, switched, pinned, rolled back."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cube_core.errors import RpcError
from tests.processes import Role, running
from tests.server.client import ServerClient, rows_in
from tests.server.tables import TABLE_NAME, make_table, place_table, rows_of
from tests.waiting import wait_until

KEYS = np.arange(200, dtype=np.uint64)
BAD_VERSIONS = ["../1_1", "/etc", "..", "1_1/../1_1", "1_1_1", "a b", "2_3"]
BAD_RECORDS = [("9_9", "9_9"), ("../..", "VERSION"), ("", "VERSION"), ("\x00é" * 300, "VERSION")]


@pytest.fixture
def role(tmp_path: Path, data_dir: Path) -> Iterator[Role]:
    """A server that started empty."""
    with running("cube_server.main", ["--port=0", "--data_dir=data"], cwd=tmp_path) as role:
        yield role


@pytest.fixture
def client(role: Role) -> Iterator[ServerClient]:
    with ServerClient(role) as client:
        yield client


def served_base(client: ServerClient, **fields: str) -> int:
    """The pass that all rows of one seek are from."""
    response = client.seek(KEYS.tolist(), version_required=True, **fields)
    base = int(response.version.split("_")[0])
    np.testing.assert_array_equal(rows_in(response), rows_of(KEYS, base))
    return base


def test_starts_empty_and_takes_its_first_version(client: ServerClient, data_dir: Path) -> None:
    assert client.state("status") == ("", "", 0)
    ready = client.http.get("/ready")
    assert (ready.status_code, ready.text) == (503, "no version is served")
    health = client.http.get("/health")
    assert (health.status_code, health.text) == (503, "no version is served")
    assert client.http.get("/live").text == "OK"
    with pytest.raises(RpcError, match="no version") as caught:
        client.seek([1])
    assert caught.value.code == 2001
    place_table(data_dir, 1)
    assert client.state("bg_load_base", version_path="/1") == ("", "1_1", 2)
    assert client.state("bg_switch") == ("1_1", "", 0)
    assert served_base(client) == 1
    assert client.http.get("/ready").status_code == 200
    assert (data_dir / "VERSION").read_text() == "1_1\n"


def test_load_switch_and_rollback(client: ServerClient, data_dir: Path) -> None:
    place_table(data_dir, 1)
    place_table(data_dir, 2)
    assert client.state("enable", version="1_1") == ("1_1", "", 0)
    assert client.state("bg_load_base", version="2_2") == ("1_1", "2_2", 2)
    assert served_base(client) == 1
    assert served_base(client, version="2_2") == 2, "a loaded version can be pinned"
    assert client.state("bg_switch", version="2_2") == ("2_2", "", 0)
    assert served_base(client) == 2
    assert served_base(client, version="1_1") == 1, "the version before stays for pins"
    assert client.state("rollback") == ("1_1", "", 0)
    assert served_base(client) == 1
    assert (data_dir / "VERSION").read_text() == "1_1\n"
    assert client.state("rollback", version="2_2") == ("2_2", "", 0)
    roles = {each["version"]: each["role"] for each in client.status()["versions"]}
    assert roles == {"2_2": "current", "1_1": "previous"}


def test_commands_may_be_sent_again(client: ServerClient, data_dir: Path) -> None:
    place_table(data_dir, 1)
    for _ in range(2):
        assert client.state("bg_load_base", version="1_1") == ("", "1_1", 2)
    for _ in range(2):
        assert client.state("bg_switch", version="1_1") == ("1_1", "", 0)
    assert client.state("bg_load_base", version="1_1") == ("1_1", "", 0)
    for _ in range(2):
        assert client.state("bg_unload") == ("1_1", "", 0)
    assert served_base(client) == 1


@pytest.mark.parametrize("command", ["bg_switch", "rollback"])
def test_what_could_not_be_recorded_is_when_the_command_is_sent_again(
    client: ServerClient, data_dir: Path, command: str
) -> None:
    for base in (1, 2):
        place_table(data_dir, base)
    first, then = ("1", "2") if command == "bg_switch" else ("2", "1")
    client.state("enable", version=then)
    client.state("enable", version=first)
    client.state("want", version=first)
    if command == "bg_switch":
        client.state("bg_load_base", version=then)
    # A directory in the place of what is written makes writing fail.
    in_the_way = [data_dir / ".VERSION.tmp", data_dir / ".WANTED.tmp"]
    for path in in_the_way:
        path.mkdir()
    for _ in range(2):
        refused = client.command(command, version=then)
        assert (refused.status_code, served_base(client)) == (500, int(then))
        assert "cannot be recorded for the next start" in refused.text
    for path in in_the_way:
        path.rmdir()
    assert client.state(command, version=then) == (f"{then}_{then}", "", 0)
    for name in ("VERSION", "WANTED"):
        assert (data_dir / name).read_text() == f"{then}_{then}\n"
    assert client.http.get("/ready").status_code == 200


def test_unload_drops_the_background_version(client: ServerClient, data_dir: Path) -> None:
    place_table(data_dir, 1)
    place_table(data_dir, 2)
    client.state("enable", version="1")
    client.state("bg_load_base", version="2")
    assert client.state("bg_unload") == ("1_1", "", 0)
    with pytest.raises(RpcError, match="2_2"):
        client.seek([1], version="2_2")
    response = client.command("bg_switch")
    assert response.status_code == 500
    assert "bg_load_base" in response.text


def test_reload_reads_a_replaced_file(client: ServerClient, data_dir: Path) -> None:
    place_table(data_dir, 1)
    client.state("enable", version="1")
    make_table(data_dir / "1_1" / TABLE_NAME, 7, version="1_1")
    assert served_base(client) == 1
    assert client.state("enable", version="1") == ("1_1", "", 0)
    assert served_base(client) == 1, "it is loaded already"
    assert client.state("reload_base") == ("1_1", "", 0)
    np.testing.assert_array_equal(rows_in(client.seek(KEYS.tolist())), rows_of(KEYS, 7))


def test_keeps_the_versions_it_may_need(tmp_path: Path, data_dir: Path) -> None:
    arguments = ["--port=0", "--data_dir=data", "--keep_replaced_s=0"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        for base in (1, 2, 3):
            place_table(data_dir, base)
            client.state("enable", version=str(base))
        assert [each["version"] for each in client.status()["versions"]] == ["3_3", "2_2"]
        assert sorted(path.name for path in data_dir.iterdir()) == ["2_2", "3_3", "VERSION"]
        with pytest.raises(RpcError, match="1_1"):
            client.seek([1], version="1_1")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_version_stays_a_while_after_it_was_replaced(
    tmp_path: Path, data_dir: Path, workers: int
) -> None:
    """Whoever pins it has that long to take notice; afterwards neither memory nor disk holds it,
    though nobody commands anything."""
    arguments = ["--port=0", "--data_dir=data", "--keep_replaced_s=4", f"--workers={workers}"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        for base in range(1, 6):
            place_table(data_dir, base)
            client.state("enable", version=str(base))
        for base in range(1, 6):
            assert served_base(client, version=f"{base}_{base}") == base
        status = client.status()
        assert [each["version"] for each in status["versions"]] == ["5_5", "4_4"]
        table_bytes = status["versions"][0]["memory_bytes"]
        assert status["replaced"] == {
            "versions": ["3_3", "2_2", "1_1"],
            "memory_bytes": 3 * table_bytes,
        }
        metrics = client.http.get("/metrics").text
        assert f'cube_server_replaced_bytes{{dict="test_dict"}} {3.0 * table_bytes}' in metrics
        wait_until(lambda: client.status()["replaced"] == {"versions": [], "memory_bytes": 0})
        wait_until(lambda: sorted(path.name for path in data_dir.glob("*_*")) == ["4_4", "5_5"])
        with pytest.raises(RpcError, match="3_3"):
            client.seek([1], version="3_3")
        assert [served_base(client, version=each) for each in ("4_4", "5_5")] == [4, 5]


def test_keeps_files_that_came_after_the_current_one(client: ServerClient, data_dir: Path) -> None:
    """They may be the next version, downloaded and not loaded yet."""
    for base, age_s in ((1, 40), (2, 30), (3, 20), (4, 10)):
        path = place_table(data_dir, base)
        os.utime(path, (path.stat().st_mtime - age_s,) * 2)
    client.state("enable", version="3")
    assert sorted(path.name for path in data_dir.glob("*_*")) == ["2_2", "3_3", "4_4"]


def test_switches_reach_clients_between_two_requests(client: ServerClient, data_dir: Path) -> None:
    """While versions change, every request is answered, and from one version only."""
    place_table(data_dir, 1)
    client.state("enable", version="1")
    stop = threading.Event()
    seen: list[set[int]] = [set(), set()]
    failures: list[Exception] = []

    def hammer(bases: set[int]) -> None:
        with ServerClient.to(client.endpoint) as own:
            while not stop.is_set():
                try:
                    bases.add(served_base(own))
                except Exception as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=hammer, args=(bases,)) for bases in seen]
    for thread in threads:
        thread.start()
    try:
        for base in (1, 2, 3, 4):
            place_table(data_dir, base)
            client.state("bg_load_base", version=str(base))
            client.state("bg_switch", version=str(base))
            wait_until(lambda: failures or all(base in bases for bases in seen))  # noqa: B023
        client.state("rollback")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert all({1, 2, 3, 4} <= bases for bases in seen)


class TestTablesThatCannotBeServed:
    """What was served before still is, and the answer names the file and what is wrong."""

    @pytest.fixture(autouse=True)
    def _serve_pass_1(self, client: ServerClient, data_dir: Path) -> None:
        place_table(data_dir, 1)
        client.state("enable", version="1")

    def refused(self, client: ServerClient, cmd: str = "bg_load_base", version: str = "2") -> str:
        response = client.command(cmd, version=version)
        assert (response.status_code, response.headers["x-bd-error-code"]) == (500, "2001")
        assert client.state("status") == ("1_1", "", 0)
        assert served_base(client) == 1
        return response.text

    def test_flipped_bit(self, client: ServerClient, data_dir: Path) -> None:
        path = place_table(data_dir, 2)
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        for cmd in ("bg_load_base", "enable", "reload_base"):
            text = self.refused(client, cmd)
            assert str(path.name) in text
            assert client.status()["last_error"] in text
        assert self.refused(client, "verify")

    def test_truncated(self, client: ServerClient, data_dir: Path) -> None:
        path = place_table(data_dir, 2)
        path.write_bytes(path.read_bytes()[:-100])
        assert TABLE_NAME in self.refused(client)

    def test_no_such_version(self, client: ServerClient) -> None:
        assert "versions on disk: 1_1" in self.refused(client, "enable", "77")

    def test_version_inside_differs(self, client: ServerClient, data_dir: Path) -> None:
        make_table(data_dir / "2_2" / TABLE_NAME, 3)
        text = self.refused(client)
        assert "version is '3_3', expected '2_2'" in text

    def test_another_dict(self, client: ServerClient, data_dir: Path) -> None:
        make_table(data_dir / "2_2" / "other_part0.table", 2, dict_name="other")
        assert "dict_name is other, this server serves test_dict" in self.refused(client)

    def test_another_shard(self, client: ServerClient, data_dir: Path) -> None:
        place_table(data_dir, 3)
        make_table(data_dir / "2_2" / "test_dict_part1.table", 2, shard=1, shard_num=2)
        text = self.refused(client)
        assert "shard is (1, 2), this server serves (0, 2)" in text

    def test_several_tables(self, client: ServerClient, data_dir: Path) -> None:
        for shard in (0, 1):
            path = data_dir / "2_2" / f"test_dict_part{shard}.table"
            make_table(path, 2, shard=shard, shard_num=2)
        assert "--shard" in self.refused(client)

    def test_names_that_are_no_base_version(self, client: ServerClient) -> None:
        for version in BAD_VERSIONS:
            self.refused(client, "bg_load_base", version)


@pytest.mark.parametrize("flag", ["--in_mem=true", "--in_mem=false"])
def test_restarts_with_the_recorded_version(tmp_path: Path, data_dir: Path, flag: str) -> None:
    place_table(data_dir, 1)
    place_table(data_dir, 2)
    leftover = data_dir / "3_3" / ".incoming-0"
    leftover.parent.mkdir()
    leftover.write_bytes(b"half")
    arguments = ["--port=0", "--data_dir=data", flag]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        assert "version=none" in role.ready_line
        assert not leftover.parent.exists()
        client.state("enable", version="2")
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        assert "version=2_2" in role.ready_line
        assert served_base(client) == 2
        response = client.command("rollback")
        assert response.status_code == 500
        assert "those on disk:" in response.text
        assert "1_1" in response.text.partition("on disk:")[2]


@pytest.mark.parametrize(
    ("recorded", "text"),
    [
        ("9_9", "9_9"),
        ("../..", "VERSION"),
        ("", "VERSION"),
        ("\x00\xff" * 300, "VERSION"),
        ("1", ""),
    ],
)
def test_starts_not_ready_when_the_recorded_version_cannot_be_served(
    tmp_path: Path, data_dir: Path, recorded: str, text: str
) -> None:
    (data_dir / "VERSION").write_text(recorded)
    path = place_table(data_dir, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with (
        running("cube_server.main", ["--port=0", "--data_dir=data"], cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        ready = client.http.get("/ready")
        assert ready.status_code == 503
        assert text in ready.text
        assert ready.text == client.status()["last_error"]
        assert "starts without a version" in role.log()
        path.write_bytes(whole)
        assert client.state("enable", version="1") == ("1_1", "", 0)
        assert client.status()["last_error"] == ""
