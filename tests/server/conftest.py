from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_core._native import Seeker, Table
from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.server.mock_connection import LIMITS
from tests.server.tables import make_table, place_table


@pytest.fixture(scope="module")
def shard_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Role]:
    """A server process that serves pass 10 and is not changed by the tests that share it."""
    directory = tmp_path_factory.mktemp("shard_server")
    place_table(directory / "data", 10)
    (directory / "data" / "VERSION").write_text("10_10\n")
    arguments = ["--port=0", "--data_dir=data", "--keys_per_request_max=1500"]
    with running("cube_server.main", arguments, cwd=directory) as role:
        yield role


@pytest.fixture(scope="module")
def seeker(tmp_path_factory: pytest.TempPathFactory) -> Seeker:
    path = tmp_path_factory.mktemp("table") / "t.table"
    make_table(path, 0)
    seeker = Seeker(1000, LIMITS.frame_bytes_max)
    seeker.set_tables(Table.open(str(path)))
    return seeker


@pytest.fixture
def client(shard_server: Role) -> Iterator[ServerClient]:
    with ServerClient(shard_server) as client:
        yield client


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    return path
