"""When a server that was put aside is used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_api._probe import answers
from cube_core.endpoint import Endpoint
from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.server.tables import place_table


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    place_table(tmp_path / "data", 1)
    place_table(tmp_path / "data", 2)
    (tmp_path / "data" / "VERSION").write_text("1_1")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        yield role


def test_one_that_is_late_is_not_used_before_it_has_caught_up(role: Role) -> None:
    endpoint = Endpoint("127.0.0.1", role.port())
    with ServerClient(role) as client:
        assert answers(endpoint, within_s=10)
        client.state("want", version="2_2")
        assert not answers(endpoint, within_s=10)
        client.state("enable", version="2_2")
        assert answers(endpoint, within_s=10)
        role.stop()
    assert not answers(endpoint, within_s=10)
