"""The daemon's HTTP port, driven without a socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cube_core.conf.transfer_conf import TransferConf
from cube_transfer.app import create_app
from cube_transfer.control_client import ServersHttp
from cube_transfer.daemon import Daemon
from cube_transfer.settings import Settings
from cube_transfer.state import State
from cube_transfer.table_links import TableLinks


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state")
    yield state
    state.close()


async def test_only_tables_are_served(tmp_path: Path, state: State) -> None:
    table = tmp_path / "output" / "1_1" / "ctr_part0.table"
    table.parent.mkdir(parents=True)
    table.write_bytes(b"rows" * 1_000_000)
    (table.parent / "build.json").write_text("{}")
    (tmp_path / "output" / "ctr_part0.table").write_text("of no version")
    conf = TransferConf(
        dict_name="ctr",
        wget_port=8098,
        donefile_address=str(tmp_path),
        output_address=str(tmp_path / "output"),
        tmp_address=str(tmp_path / "tmp"),
        shard_num=1,
    )
    async with httpx.AsyncClient() as http:
        servers = ServersHttp()
        daemon = Daemon(
            Settings(conf, TableLinks("http://127.0.0.1", b"key")), state, http, servers
        )
        transport = httpx.ASGITransport(create_app(daemon))
        async with httpx.AsyncClient(transport=transport, base_url="http://transfer") as client:
            assert (await client.get("/files/1_1/ctr_part0.table")).content == table.read_bytes()
            for path in ("/health", "/live"):
                assert (await client.get(path)).text == "OK"
            status = (await client.get("/status")).json()
            assert (status["serving"], status["deploying"]) == ("", None)
            for path in (
                "1_1/build.json",
                "1_1/other_part0.table",
                "9_9/ctr_part0.table",
                "1/ctr_part0.table",
                "%2e%2e/1_1/ctr_part0.table",
                "..%2foutput%2f1_1/ctr_part0.table",
                "1_1/..%2fctr_part0.table",
                "/ctr_part0.table",
            ):
                assert (await client.get(f"/files/{path}")).status_code == 404, path
            assert (await client.get("/models/current")).status_code == 404
