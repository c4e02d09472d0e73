"""Both clients against real shard servers: switched, killed and started again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from cube_api import ShardError, VersionNotLoadedError
from cube_core.wire.prpc_blocking import BlockingConnection
from tests.api.conftest import NewClient
from tests.api.peers import conf_of, expected_rows
from tests.api.shard_servers import endpoint_of, new_shard, shard_server
from tests.processes import Role

KEYS = np.array([5, 1, 1000, 4, 5, 2**64 - 1], np.uint64)
FOUND = np.array([0, 1, 3, 4])


@pytest.fixture
def shards(tmp_path: Path) -> Iterator[list[Role]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(shard_server(new_shard(tmp_path / str(shard), shard)))
            for shard in range(2)
        ]


def command(role: Role, cmd: str, version: str) -> None:
    connection = BlockingConnection(endpoint_of(role))
    try:
        connection.call(
            "ControlService",
            "cmd",
            b"",
            attachment=json.dumps({"cmd": cmd, "version": version}).encode(),
            timeout_s=10,
        )
    finally:
        connection.close()


def test_seek_switch_kill_restart(
    new_client: NewClient, shards: list[Role], tmp_path: Path
) -> None:
    client = new_client(conf_of([[endpoint_of(role)] for role in shards], timeout=5000))

    def check(version: str, pinned: bool = False) -> None:
        result = client.seek("d", KEYS, version=version if pinned else None)
        assert result.status.tolist() == [0, 0, -1, 0, 0, -1]
        assert result.version == version
        np.testing.assert_array_equal(result.rows[FOUND], expected_rows(KEYS[FOUND], version))

    check("1_1")
    with pytest.raises(VersionNotLoadedError, match="2_2"):
        check("2_2", pinned=True)
    for role in shards:
        command(role, "bg_load_base", "2_2")
    command(shards[0], "bg_switch", "2_2")
    check("1_1", pinned=True)
    assert client.seek("d", KEYS).version in {"1_1", "2_2"}
    command(shards[1], "bg_switch", "2_2")
    check("2_2")
    check("1_1", pinned=True)

    port = shards[1].port()
    shards[1].stop(signal.SIGKILL)
    with pytest.raises(ShardError, match=f"shard 1 .*127.0.0.1:{port}"):
        client.seek("d", KEYS)
    with shard_server(tmp_path / "1", port):
        check("2_2")
