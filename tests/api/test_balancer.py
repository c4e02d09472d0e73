"""Which replica is asked first, by the health of each."""

from __future__ import annotations

from collections import Counter

import pytest

from cube_api._balancer import Replica, Replicas
from cube_api._health import FAILURES_MAX, HealthBoard
from cube_api._murmur import murmur3_32
from cube_core.endpoint import Endpoint

BALANCERS = ["rr", "random", "wr", "la", "c_murmurhash", ""]


def new_replicas(count: int) -> list[Replica]:
    board = HealthBoard(lambda _: None, lambda: None)
    endpoints = [Endpoint(f"h{number}", 1) for number in range(count)]
    return [Replica(endpoint, 1, board.of(endpoint)) for endpoint in endpoints]


def firsts(replicas: Replicas, count: int = 1000) -> Counter[Endpoint]:
    return Counter(replicas.in_order(key * 7919)[0].endpoint for key in range(count))


@pytest.mark.parametrize("load_balancer", BALANCERS)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_replica_comes_once(load_balancer: str, count: int) -> None:
    replicas = new_replicas(count)
    for aside in ([], replicas[:1], replicas):
        for replica in aside:
            for _ in range(FAILURES_MAX):
                replica.health.failed(0)
        ordered = Replicas(replicas, load_balancer)
        for key in range(20):
            order = ordered.in_order(key)
            assert sorted(order) == sorted(replicas)
            are_aside = [replica.health.is_aside for replica in order]
            assert are_aside == sorted(are_aside)


def test_rr_asks_those_that_live_in_turn() -> None:
    replicas = new_replicas(3)
    for _ in range(FAILURES_MAX):
        replicas[1].health.failed(0)
    assert firsts(Replicas(replicas, "rr"), 100) == {
        replicas[0].endpoint: 50,
        replicas[2].endpoint: 50,
    }


def test_la_prefers_who_answers_faster_and_owes_less() -> None:
    replicas = new_replicas(3)
    for replica, latency_s in zip(replicas, [0.001, 0.001, 0.1], strict=True):
        replica.health.latency_s = latency_s
    counts = firsts(Replicas(replicas, "la"))
    assert counts[replicas[2].endpoint] < 40 < 350 < counts[replicas[0].endpoint]
    for number in range(9):
        replicas[0].health.sent(number, 1e12)
    counts = firsts(Replicas(replicas, "la"))
    assert counts[replicas[0].endpoint] < 200 < 750 < counts[replicas[1].endpoint]


def test_la_leaves_who_hangs() -> None:
    replicas = new_replicas(2)
    for replica in replicas:
        replica.health.latency_s = 0.001
    replicas[0].health.sent(1, 0.0)
    assert firsts(Replicas(replicas, "la"))[replicas[0].endpoint] < 20


def test_only_the_batches_of_a_replica_that_goes_move() -> None:
    replicas = new_replicas(4)
    ring = Replicas(replicas, "c_murmurhash")
    before = [ring.in_order(key)[0] for key in range(1000)]
    assert min(Counter(replica.endpoint for replica in before).values()) > 100
    for _ in range(FAILURES_MAX):
        replicas[3].health.failed(0)
    after = [ring.in_order(key)[0] for key in range(1000)]
    moved = [old for old, new in zip(before, after, strict=True) if old != new]
    assert {replica.endpoint for replica in moved} == {replicas[3].endpoint}


@pytest.mark.parametrize(
    ("data", "seed", "expected"),
    [
        (b"", 1, 0x514E28B7),
        (b"test", 0, 0xBA6BD213),
        (b"hello, world", 0, 0x149BBB7F),
        (b"The quick brown fox jumps over the lazy dog", 0x9747B28C, 0x2FA826CD),
    ],
)
def test_murmur3_as_published(data: bytes, seed: int, expected: int) -> None:
    assert murmur3_32(data, seed) == expected
