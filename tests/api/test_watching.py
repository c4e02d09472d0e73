"""Topologies that change: cube.conf, file lists and DNS names, taken over between two seeks."""

from __future__ import annotations

import gc
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from cube_api import ConfError, CubeClient
from cube_api._directory import Directory
from cube_api._health import HealthBoard
from cube_api._pool import ConnectionPool
from cube_api._topology import Topology
from cube_core.endpoint import Endpoint
from tests.api.conftest import NewPeer
from tests.api.peers import (
    Client,
    answer_from,
    answer_with,
    client_of,
    conf_of,
    expected_rows,
    new_seeker,
    write_shard,
)
from tests.prpc_peer import LoopThread, Peer
from tests.waiting import wait_until

KEYS = np.arange(20, dtype=np.uint64)
NewFileClient = Callable[[Path], Client]


@pytest.fixture(params=["sync", "async"])
def new_file_client(
    request: pytest.FixtureRequest, client_thread: LoopThread
) -> Iterator[NewFileClient]:
    with ExitStack() as stack:
        yield lambda path: stack.enter_context(client_of(request.param, client_thread, path))


def write_conf(path: Path, shards: Sequence[Sequence[Endpoint]], name: str = "d") -> None:
    """Replaces the file, as editors and deployments do."""
    nodes = [{"ipport_list": "list://" + ",".join(map(str, shard))} for shard in shards]
    write_nodes(path, nodes, name)


def write_nodes(path: Path, nodes: list[dict[str, str]], name: str = "d") -> None:
    entry = {
        "dict_name": name,
        "shard": len(nodes),
        "timeout": 5000,
        "type": "ipport_list",
        "nodes": nodes,
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps([entry]))
    new.rename(path)


def peers_of(new_peer: NewPeer, folder: Path, shard_num: int, version: str) -> list[Peer]:
    return [
        new_peer(answer_from(new_seeker(write_shard(folder, shard, shard_num, version))))
        for shard in range(shard_num)
    ]


def endpoints_of(peers: Sequence[Peer]) -> list[list[Endpoint]]:
    return [[peer.endpoint] for peer in peers]


def test_another_shard_count_is_taken_over_under_load(
    new_file_client: NewFileClient, new_peer: NewPeer, tmp_path: Path
) -> None:
    """No seek fails, and none mixes the two topologies: each serves another version."""
    old = peers_of(new_peer, tmp_path, 2, "1_1")
    new = peers_of(new_peer, tmp_path, 3, "2_2")
    path = tmp_path / "cube.conf"
    write_conf(path, endpoints_of(old))
    client = new_file_client(path)
    seen: list[str | None] = []
    failures: list[BaseException] = []
    stopped = threading.Event()

    def run() -> None:
        while not stopped.is_set():
            try:
                result = client.seek("d", KEYS)
                expected = expected_rows(KEYS, str(result.version))
                np.testing.assert_array_equal(result.rows, expected)
                seen.append(result.version)
            except BaseException as error:
                failures.append(error)
                return

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(seen) > 50 or failures, 20.0, "seeks of the old topology")
        write_conf(path, endpoints_of(new))
        wait_until(lambda: seen[-1] == "2_2" or failures, 20.0, "seeks of the new topology")
    finally:
        stopped.set()
        for thread in threads:
            thread.join(20)
    assert failures == []
    assert set(seen) == {"1_1", "2_2"}


@pytest.mark.parametrize("broken", ["[{", "[]", '[{"dict_name": "d"}]'])
def test_a_broken_file_is_logged_and_the_old_topology_stays(
    new_file_client: NewFileClient,
    new_peer: NewPeer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    peers = peers_of(new_peer, tmp_path, 2, "1_1")
    path = tmp_path / "cube.conf"
    write_conf(path, endpoints_of(peers))
    client = new_file_client(path)
    client.seek("d", KEYS)
    path.write_text(broken)
    wait_until(lambda: "the topology stays as it was" in caplog.text, 15.0, "the warning")
    assert str(path) in caplog.text
    assert client.seek("d", KEYS).version == "1_1"
    new = peers_of(new_peer, tmp_path, 1, "2_2")
    write_conf(path, endpoints_of(new))
    wait_until(lambda: client.seek("d", KEYS).version == "2_2", 15.0, "the repaired file")
    assert caplog.text.count("the topology stays as it was") == 1


def test_a_file_that_is_gone_changes_nothing(
    new_file_client: NewFileClient,
    new_peer: NewPeer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "cube.conf"
    write_conf(path, endpoints_of(peers_of(new_peer, tmp_path, 1, "1_1")))
    client = new_file_client(path)
    client.seek("d", KEYS)
    path.unlink()
    wait_until(lambda: "the topology stays as it was" in caplog.text, 15.0, "the warning")
    assert client.seek("d", KEYS).version == "1_1"


def test_a_dict_that_is_taken_out(
    new_file_client: NewFileClient, new_peer: NewPeer, tmp_path: Path
) -> None:
    path = tmp_path / "cube.conf"
    peers = peers_of(new_peer, tmp_path, 1, "1_1")
    write_conf(path, endpoints_of(peers))
    client = new_file_client(path)
    client.seek("d", KEYS)
    write_conf(path, endpoints_of(peers), name="e")

    def is_gone() -> bool:
        try:
            client.seek("d", KEYS)
        except ConfError as error:
            return "it has: e" in str(error)
        return False

    wait_until(is_gone, 15.0, "the new dicts")


def test_connections_to_servers_that_left_are_closed(
    new_file_client: NewFileClient, new_peer: NewPeer, tmp_path: Path
) -> None:
    path = tmp_path / "cube.conf"
    old = peers_of(new_peer, tmp_path, 1, "1_1")
    new = peers_of(new_peer, tmp_path, 1, "2_2")
    write_conf(path, endpoints_of(old))
    client = new_file_client(path)
    client.seek("d", KEYS)
    assert old[0].open_connections_num == 1
    write_conf(path, endpoints_of(new))
    wait_until(lambda: client.seek("d", KEYS).version == "2_2", 15.0, "the new topology")
    wait_until(lambda: old[0].open_connections_num == 0, 10.0, "the old connections to close")


def test_a_list_of_servers_in_a_file(
    new_file_client: NewFileClient, new_peer: NewPeer, tmp_path: Path
) -> None:
    old, new = (peers_of(new_peer, tmp_path, 1, version)[0] for version in ("1_1", "2_2"))
    servers = tmp_path / "servers"
    servers.write_text(f"# of the first shard\n{old.endpoint} 3  # heavier\n\n")
    path = tmp_path / "cube.conf"
    write_nodes(path, [{"ipport_list": f"file://{servers}"}])
    client = new_file_client(path)
    assert client.seek("d", KEYS).version == "1_1"
    servers.write_text(f"{new.endpoint}\n")
    wait_until(lambda: client.seek("d", KEYS).version == "2_2", 15.0, "the new list")


def test_a_name_is_resolved_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cube_api._conf_source.RESOLVE_INTERVAL_S", 0.2)
    addresses = ["127.0.0.1"]
    genuine = socket.getaddrinfo

    def resolve(host: str, *rest: object, **more: object) -> list[tuple[object, ...]]:
        if host != "cube.test":
            return genuine(host, *rest, **more)  # type: ignore[return-value, arg-type]
        return [found for each in addresses for found in genuine(each, *rest, **more)]  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    path = tmp_path / "cube.conf"
    write_nodes(path, [{"ipport_list": "http://cube.test:80"}])
    directory = Directory(path)
    try:
        assert directory.topology.endpoints() == {Endpoint("127.0.0.1", 80)}
        addresses.append("127.0.0.2")
        expected = {Endpoint("127.0.0.1", 80), Endpoint("127.0.0.2", 80)}
        wait_until(lambda: directory.topology.endpoints() == expected, 15.0, "both addresses")
        addresses.clear()
        wait_until(lambda: "names no server" in caplog.text, 15.0, "the warning")
        assert directory.topology.endpoints() == expected
    finally:
        directory.close()


def test_a_forgotten_client_leaves_no_thread(new_peer: NewPeer, tmp_path: Path) -> None:
    path = tmp_path / "cube.conf"
    write_conf(path, [[new_peer(answer_with({})).endpoint]])
    before = threading.active_count()
    client = CubeClient(path)
    assert client.dicts["d"].shard == 1
    assert threading.active_count() == before + 1
    del client
    gc.collect()
    wait_until(lambda: threading.active_count() == before, 10.0, "the thread to end")


def test_a_connection_to_a_server_that_is_gone_from_the_conf_is_not_kept(
    new_peer: NewPeer,
) -> None:
    """It was lent to a seek while the conf changed."""
    gone, other = (new_peer(lambda _: b"") for _ in range(2))
    board = HealthBoard(lambda _: None, lambda: None)
    before, after = (
        Topology(conf_of([[peer.endpoint]]), "cube.conf", board) for peer in (gone, other)
    )
    pool = ConnectionPool(before)
    lent = pool.take(gone.endpoint)
    wait_until(lambda: gone.open_connections_num == 1)
    pool.adopt(after)
    pool.give_back(lent)
    wait_until(lambda: gone.open_connections_num == 0)
    pool.close()
