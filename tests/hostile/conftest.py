from __future__ import annotations

import pytest

from cube_core._native import Seeker, Table
from tests.server.mock_connection import LIMITS
from tests.server.tables import make_table


@pytest.fixture(scope="module")
def seeker(tmp_path_factory: pytest.TempPathFactory) -> Seeker:
    path = tmp_path_factory.mktemp("table") / "t.table"
    make_table(path, 0)
    seeker = Seeker(100_000, LIMITS.frame_bytes_max)
    seeker.set_tables(Table.open(str(path)))
    return seeker
