"""The table of shards and replicas."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from cube_api import CubeClient
from cube_api.cli.status import fleet_status
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.endpoint import Endpoint
from tests.cli.conftest import cli, write_conf
from tests.prpc_peer import LoopThread, Peer
from tests.server.tables import DICT_NAME, KEY_COUNT


def row_of(stdout: str, endpoint: Endpoint) -> list[str]:
    """The cells of an endpoint's line."""
    line = next(line for line in stdout.splitlines() if f" {endpoint} " in line)
    return [cell.strip() for cell in line.strip("│ \n").split("│")]


def test_every_replica_has_a_line(conf: Path, shards: list[Endpoint]) -> None:
    done = cli("status", f"--config_file={conf}", "--interval_s=0.1")
    assert done.code == 0, done.stderr
    for shard, endpoint in enumerate(shards):
        name, number, server, version, keys, memory, rate, state = row_of(done.stdout, endpoint)
        assert (name, number, server) == (DICT_NAME, str(shard), str(endpoint))
        assert (version, keys, state) == ("10_10", f"{KEY_COUNT // 2:,}", "serving")
        assert float(memory) > 0
        assert float(rate) >= 0


def test_what_cannot_be_reached_or_serves_another_shard_is_shown(
    shards: list[Endpoint], tmp_path: Path
) -> None:
    gone = Endpoint("127.0.0.1", 1)
    conf = write_conf(tmp_path / "cube.conf", [[shards[0], gone], [shards[1]]])
    done = cli("status", f"--config_file={conf}", "--interval_s=0.1")
    assert done.code == 1
    assert row_of(done.stdout, shards[0])[-1] == "serving"
    assert row_of(done.stdout, gone)[-1].startswith("unreachable: ")

    crossed = write_conf(tmp_path / "crossed.conf", [[shards[1]], [shards[0]]])
    done = cli("status", f"--config_file={crossed}", "--interval_s=0.1", f"--dict={DICT_NAME}")
    assert done.code == 1
    assert row_of(done.stdout, shards[1])[-1] == f"serves {DICT_NAME} shard 1"


def test_replicas_may_stand_in_a_file(shards: list[Endpoint], tmp_path: Path) -> None:
    conf = write_conf(tmp_path / "cube.conf", [[shards[0]], [shards[1]]])
    listed = tmp_path / "replicas"
    conf.write_text(conf.read_text().replace(f"list://{shards[1]}", f"file://{listed}"))
    done = cli("status", f"--config_file={conf}")
    assert done.code == 2
    assert str(listed) in done.stderr
    assert done.stderr.startswith("error: ")
    listed.write_text(f"{shards[1]}\n")
    done = cli("status", f"--config_file={conf}", "--interval_s=0.1")
    assert done.code == 0, done.stderr
    assert row_of(done.stdout, shards[1])[-1] == "serving"


def test_a_peer_that_speaks_no_http_is_shown(tmp_path: Path) -> None:
    thread = LoopThread()
    peer = Peer(thread, lambda _: b"")
    try:
        peer.accepts = False
        conf = write_conf(tmp_path / "cube.conf", [[peer.endpoint]])
        replicas = fleet_status(read_cube_conf(conf).values(), interval_s=0.01, timeout_s=1)
    finally:
        peer.stop()
        thread.close()
    assert replicas[0].problem.startswith("unreachable: ")


def test_the_rate_is_that_of_the_requests(conf: Path) -> None:
    done = threading.Event()
    with CubeClient(conf) as client:

        def load() -> None:
            while not done.is_set():
                client.seek(DICT_NAME, np.arange(2, dtype=np.uint64))

        thread = threading.Thread(target=load)
        thread.start()
        try:
            replicas = fleet_status(read_cube_conf(conf).values(), interval_s=0.5, timeout_s=10)
        finally:
            done.set()
            thread.join()
    assert [replica.problem for replica in replicas] == ["", ""]
    assert all(replica.requests_per_s > 10 for replica in replicas)
