"""Several servers of one shard: which is asked, and which stands in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cube_api import ShardError, VersionNotLoadedError
from cube_core._native import encode_error_frame
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import answer_from, conf_of, expected_rows, new_seeker, write_shard
from tests.prpc_peer import Peer

KEYS = np.arange(10, dtype=np.uint64)


@pytest.fixture
def replicas(new_peer: NewPeer, tmp_path: Path) -> list[Peer]:
    """Three servers of the one shard of "d", version 1_1."""
    table = write_shard(tmp_path, 0, 1, "1_1")
    return [new_peer(answer_from(new_seeker(table))) for _ in range(3)]


@pytest.mark.parametrize("load_balancer", ["rr", ""])
def test_in_turn(new_client: NewClient, replicas: list[Peer], load_balancer: str) -> None:
    conf = conf_of([[peer.endpoint for peer in replicas]], load_balancer=load_balancer)
    client = new_client(conf)
    for _ in range(9):
        client.seek("d", KEYS)
    assert [peer.requests_num for peer in replicas] == [3, 3, 3]


@pytest.mark.parametrize("load_balancer", ["random", "wr", "la"])
def test_at_random(new_client: NewClient, replicas: list[Peer], load_balancer: str) -> None:
    client = new_client(
        conf_of([[p.endpoint for p in replicas]], load_balancer=load_balancer, timeout=10_000)
    )
    for _ in range(90):
        client.seek("d", KEYS)
    counts = [peer.requests_num for peer in replicas]
    assert sum(counts) == 90
    assert min(counts) > 0


def test_by_weight(new_client: NewClient, replicas: list[Peer]) -> None:
    weights = [1, 1, 30]
    servers = [f"{p.endpoint} {w}" for p, w in zip(replicas, weights, strict=True)]
    nodes = [{"ipport_list": f"list://{','.join(servers)}"}]
    client = new_client(conf_of([[]], nodes=nodes, load_balancer="wr"))
    for _ in range(100):
        client.seek("d", KEYS)
    assert replicas[2].requests_num > 70


def test_equal_first_keys_go_to_one_replica(new_client: NewClient, replicas: list[Peer]) -> None:
    endpoints = [peer.endpoint for peer in replicas]
    client = new_client(conf_of([endpoints], load_balancer="c_murmurhash"))
    for _ in range(10):
        client.seek("d", KEYS[3:])
    assert sorted(peer.requests_num for peer in replicas) == [0, 0, 10]
    for key in range(100):
        client.seek("d", np.array([key], np.uint64))
    assert min(peer.requests_num for peer in replicas) > 5


def test_another_replica_stands_in(new_client: NewClient, replicas: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint for peer in replicas]]))
    replicas[0].stop()
    replicas[2].accepts = False
    for _ in range(6):
        rows, status = client.seek("d", KEYS)
        assert not status.any()
        np.testing.assert_array_equal(rows, expected_rows(KEYS, "1_1"))
    assert replicas[1].requests_num == 6


def test_a_replica_that_stops_is_passed_over(new_client: NewClient, replicas: list[Peer]) -> None:
    replicas[0].answer = lambda frame: encode_error_frame(frame.correlation_id, 2003, "stopping")
    client = new_client(conf_of([[peer.endpoint for peer in replicas]]))
    for _ in range(3):
        assert not client.seek("d", KEYS).status.any()


@pytest.mark.parametrize("retry", [0, 1, 5])
def test_retries_are_those_of_the_conf(
    new_client: NewClient, replicas: list[Peer], retry: int
) -> None:
    for peer in replicas:
        peer.accepts = False
    client = new_client(conf_of([[peer.endpoint for peer in replicas]], retry=retry))
    problem = f"{retry + 1} attempts failed, the last: " if retry else "lost before the answer"
    with pytest.raises(ShardError, match=problem) as raised:
        client.seek("d", KEYS)
    assert all(str(peer.endpoint) in str(raised.value) for peer in replicas)
    assert sum(peer.connections_num for peer in replicas) == retry + 1


def test_a_replica_without_the_pinned_version(
    new_client: NewClient, replicas: list[Peer], tmp_path: Path
) -> None:
    replicas[1].answer = answer_from(new_seeker(write_shard(tmp_path, 0, 1, "2_2")))
    client = new_client(conf_of([[peer.endpoint for peer in replicas]], retry=0))
    for _ in range(3):
        assert client.seek("d", KEYS, version="2_2").version == "2_2"
        assert client.seek("d", KEYS, version="1_1").version == "1_1"
    with pytest.raises(VersionNotLoadedError, match="3_3"):
        client.seek("d", KEYS, version="3_3")
