"""A server that is not at the version that was named is not ready, and says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.processes import Role, running
from tests.server.client import TIMEOUT_S, ServerClient
from tests.server.tables import place_table
from tests.waiting import wait_until

ARGUMENTS = ["--port=0", "--data_dir=data"]


@pytest.fixture(params=[1, 2], ids=["one process", "workers"])
def role(request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path) -> Iterator[Role]:
    """A server of pass 1, with pass 2 on disk."""
    place_table(data_dir, 1)
    place_table(data_dir, 2)
    (data_dir / "VERSION").write_text("1_1")
    arguments = [*ARGUMENTS, f"--workers={request.param}"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        yield role


@pytest.fixture
def client(role: Role) -> Iterator[ServerClient]:
    with ServerClient(role) as client:
        yield client


def ready(client: ServerClient) -> tuple[int, str]:
    answer = client.http.get("/ready")
    assert client.http.get("/live").status_code == 200, "it lives all the time"
    health = client.http.get("/health")
    assert (health.status_code, health.text) == (answer.status_code, answer.text)
    return answer.status_code, answer.text


def test_it_is_ready_when_it_serves_what_is_wanted(role: Role, client: ServerClient) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{role.port('grpc_port')}") as channel:
        health = health_pb2_grpc.HealthStub(channel)

        def serving() -> bool:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        assert ready(client) == (200, "OK")
        for _ in range(2):
            assert client.state("want", version="2") == ("1_1", "", 0)
        late = (503, "version 1_1 is served, 2_2 is wanted")
        assert ready(client) == late
        wait_until(lambda: not serving())
        status = client.status()
        assert (status["want_version"], status["ready"]) == ("2_2", False)
        assert client.seek([1]).values[0].status == 0, "it answers all the same"
        assert client.state("bg_load_base", version="2") == ("1_1", "2_2", 2)
        assert ready(client) == late
        client.state("bg_switch", version="2")
        assert ready(client) == (200, "OK")
        wait_until(serving)
        assert client.command("status").json()["ready"] is True


def test_what_could_not_be_written_is_when_it_is_sent_again(
    client: ServerClient, data_dir: Path
) -> None:
    (data_dir / ".WANTED.tmp").mkdir()
    for _ in range(2):
        refused = client.command("want", version="2")
        assert refused.status_code == 500
        assert "cannot be recorded for the next start" in refused.text
        assert ready(client) == (503, "version 1_1 is served, 2_2 is wanted")
    (data_dir / ".WANTED.tmp").rmdir()
    client.state("want", version="2")
    assert (data_dir / "WANTED").read_text() == "2_2\n"


def test_it_is_late_for_a_rollback_too(client: ServerClient) -> None:
    client.state("enable", version="2")
    client.state("want", version="1")
    assert ready(client) == (503, "version 2_2 is served, 1_1 is wanted")
    client.state("rollback", version="1")
    assert ready(client) == (200, "OK")


def test_who_switches_on_or_back_wants_what_it_switches_to(client: ServerClient) -> None:
    client.state("want", version="1")
    client.state("enable", version="2")
    assert client.command("status").json()["want_version"] == "2_2"
    assert ready(client) == (200, "OK")
    client.state("rollback")
    assert client.command("status").json()["want_version"] == "1_1"
    assert ready(client) == (200, "OK")


def test_after_a_restart_it_waits_to_be_told(role: Role, tmp_path: Path) -> None:
    """What it was told before may be old: others may have switched while it was away."""
    with ServerClient(role) as client:
        client.state("want", version="1")
    role.stop()
    (tmp_path / "data" / ".WANTED.tmp").write_text("left by a killed one")
    arguments = [*ARGUMENTS, "--want_timeout_s=600"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as again,
        ServerClient(again) as client,
    ):
        assert not (tmp_path / "data" / ".WANTED.tmp").exists()
        code, why = ready(client)
        assert code == 503
        assert "waits up to 600 s to be told which one is wanted, 1_1 was before" in why
        assert client.command("status").json()["want_version"] == ""
        assert client.seek([1]).values[0].status == 0, "it answers all the same"
        client.state("want", version="2")
        assert ready(client) == (503, "version 1_1 is served, 2_2 is wanted")
        client.state("want")
        assert ready(client) == (200, "OK")
        assert not (tmp_path / "data" / "WANTED").exists()


def test_when_nobody_tells_it_what_was_wanted_before_holds(tmp_path: Path, data_dir: Path) -> None:
    place_table(data_dir, 1)
    (data_dir / "VERSION").write_text("1_1")
    (data_dir / "WANTED").write_text("2_2")
    arguments = [*ARGUMENTS, "--want_timeout_s=0.1"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        expected = (503, "version 1_1 is served, 2_2 is wanted")
        wait_until(lambda: ready(client) == expected)


def test_a_note_that_cannot_be_read_does_not_keep_it_from_serving(
    tmp_path: Path, data_dir: Path
) -> None:
    place_table(data_dir, 1)
    (data_dir / "VERSION").write_text("1_1")
    (data_dir / "WANTED").write_text("../..")
    with (
        running("cube_server.main", ARGUMENTS, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        assert ready(client) == (200, "OK")
        assert "WANTED" in role.log()
