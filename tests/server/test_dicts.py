"""Several dicts in one server, and what it tells of itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_core.errors import RpcError
from tests.processes import Role, running
from tests.server.client import ServerClient, rows_in
from tests.server.tables import DIM, KEY_COUNT, make_table

DICTS = ("users", "items")


@pytest.fixture(scope="module", params=[1, 2], ids=["one_process", "workers"])
def role(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Role]:
    """Serves pass 1 of `users` and nothing of `items`, of which passes 2 and 3 are on disk."""
    directory = tmp_path_factory.mktemp("dicts")
    for name, base in (("users", 1), ("users", 4), ("items", 2), ("items", 3)):
        path = directory / "data" / name / f"{base}_{base}" / f"{name}_part0.table"
        make_table(path, base, dict_name=name)
    (directory / "data" / "users" / "VERSION").write_text("1_1")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", f"--workers={request.param}"]
    flags = [f"--dict_name={name}" for name in DICTS]
    with running("cube_server.main", [*arguments, *flags], cwd=directory) as role:
        yield role


def first_value(client: ServerClient, dict_name: str | None, **fields: str) -> float:
    return float(rows_in(client.seek([0], dict_name=dict_name, **fields))[0, 0])


def test_each_dict_has_its_versions(role: Role) -> None:
    assert "dicts=users,items" in role.ready_line
    with ServerClient(role) as client:
        assert first_value(client, None) == first_value(client, "users") == 1e6
        with pytest.raises(RpcError, match="no version is loaded"):
            client.seek([0], dict_name="items")
        ready = client.http.get("/ready")
        assert (ready.status_code, ready.text) == (503, "items: no version is served")
        state = client.state("enable", version="2_2", dict_name="items")
        assert state == ("2_2", "", 0)
        assert client.http.get("/ready").status_code == 200
        assert client.state("status") == ("1_1", "", 0)
        assert (first_value(client, "users"), first_value(client, "items")) == (1e6, 2e6)
        client.state("enable", version="3_3", dict_name="items")
        assert first_value(client, "items", version="2_2") == 2e6
        assert (first_value(client, "items"), first_value(client, None)) == (3e6, 1e6)
        client.state("enable", version="4_4")
        assert (first_value(client, "items"), first_value(client, "users")) == (3e6, 4e6)
        status = client.status()
        assert status["cur_version"] == status["dicts"]["users"]["cur_version"] == "4_4"
        assert status["dicts"]["items"]["cur_version"] == "3_3"
        data_dir = role.log_path.parent / "data"
        assert (data_dir / "items" / "VERSION").read_text() == "3_3\n"


def test_dicts_that_are_not_served_are_refused(role: Role) -> None:
    with ServerClient(role) as client:
        with pytest.raises(RpcError, match="dict 'nope' is not served; served: users, items"):
            client.seek([0], dict_name="nope")
        response = client.command("status", dict_name="nope")
        assert response.status_code == 500
        assert "served: users, items" in response.text
        assert client.command("enable", version="2_2", dict_name="users").status_code == 500


def test_variables_have_the_names_of_the_original(role: Role) -> None:
    with ServerClient(role) as client:
        client.state("enable", version="1_1")
        client.seek([0, 1, KEY_COUNT + 1])
        lines = client.http.get("/vars").text.splitlines()
        assert all(re.fullmatch(r"\w+ : \d+", line) for line in lines)
        found = {name: int(number) for name, number in (line.split(" : ") for line in lines)}
        assert found["request_num"] >= 1
        assert found["unfound_key_num"] >= 1
        for name in ("request_num", "total_key_num", "unfound_key_num"):
            assert found[f"{name}_minute"] <= found[name]
        assert 1 <= found["keys_per_request_num"] <= 3
        assert found["data_size"] > KEY_COUNT * DIM * 4
        assert "data_load_time" in found
        some = client.http.get("/vars/request_num,data_*").text.splitlines()
        names = [line.split(" : ")[0] for line in some]
        assert names == ["data_keys", "data_load_time", "data_size", "request_num"]
        assert client.http.get("/vars/nope").status_code == 404


def test_latencies_are_told_as_a_histogram(role: Role) -> None:
    def buckets(client: ServerClient) -> dict[str, float]:
        text = client.http.get("/metrics").text
        found = re.findall(r'^cube_server_seek_seconds_bucket{le="(.*)"} (.*)$', text, re.MULTILINE)
        return {bound: float(count) for bound, count in found}

    with ServerClient(role) as client:
        before = buckets(client)
        for _ in range(5):
            client.seek([0, 1])
        after = buckets(client)
        assert next(iter(after)) == "1e-05"
        assert list(after.values()) == sorted(after.values())
        assert after["+Inf"] - before["+Inf"] == 5
        text = client.http.get("/metrics").text
        assert 'cube_server_table_keys{dict="users"' in text
        assert "cube_server_seek_response_bytes_total" in text


def test_a_dict_given_twice_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="--dict_name: 'a' is given twice"),
        running("cube_server.main", ["--port=0", "--dict_name=a", "--dict_name=a"], cwd=tmp_path),
    ):
        pass


def test_a_name_that_is_none_is_refused_by_a_server_of_one_dict(client: ServerClient) -> None:
    assert client.seek([1], dict_name="test_dict").values[0].status == 0
    with pytest.raises(RpcError, match="served: test_dict"):
        client.seek([1], dict_name="other")
    assert client.command("status", dict_name="other").status_code == 500
