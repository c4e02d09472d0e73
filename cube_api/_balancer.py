"""In which order the replicas of a shard are asked."""

from __future__ import annotations

import bisect
import itertools
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from cube_api._health import EndpointHealth
from cube_api._murmur import murmur3_32
from cube_core.endpoint import Endpoint

RING_POINTS_PER_REPLICA = 100
"""Places of each replica on the ring of consistent hashing."""

LATENCY_MIN_S = 10e-6
"""Shorter latencies count as this one, so that none draws all requests."""


class Replica(NamedTuple):
    """One server of a shard."""

    endpoint: Endpoint
    weight: int
    health: EndpointHealth


Order = Callable[[list[Replica], int], list[Replica]]
"""Orders the replicas that are not put aside, at least two of them, for a batch of that first
key."""


class Replicas:
    """The servers of one shard.

    Args:
        load_balancer: as in `cube.conf`: "rr", "random", "wr", "la" or "c_murmurhash"; "" is "rr".
    """

    def __init__(self, replicas: list[Replica], load_balancer: str) -> None:
        self._replicas = replicas
        self._order = _order_named(load_balancer, replicas)
        self._version: str | None = None

    def in_order(self, first_key: int) -> list[Replica]:
        """All of them, the one to ask first in front, those that are put aside at the end."""
        if len(self._replicas) == 1:
            return self._replicas
        live = [replica for replica in self._replicas if not replica.health.is_aside]
        if len(live) in (0, len(self._replicas)):
            return self._order(self._replicas, first_key)
        aside = [replica for replica in self._replicas if replica.health.is_aside]
        return (self._order(live, first_key) if len(live) > 1 else live) + aside

    def answered_from(self, version: str | None) -> None:
        """Takes note of the version that one of them serves: while it changes from answer to
        answer, some of them may be late."""
        if version == self._version:
            return
        before, self._version = self._version, version
        if before is None or len(self._replicas) == 1:
            return
        now_s = time.monotonic()
        for replica in self._replicas:
            replica.health.doubt(now_s)


def _order_named(load_balancer: str, replicas: Sequence[Replica]) -> Order:
    if load_balancer == "random":
        return _at_random
    if load_balancer == "wr":
        return _by_weight
    if load_balancer == "la":
        return _by_latency
    if load_balancer == "c_murmurhash":
        return _Ring(replicas).order
    return _RoundRobin().order


class _RoundRobin:
    def __init__(self) -> None:
        self._turns = itertools.count()

    def order(self, replicas: list[Replica], first_key: int) -> list[Replica]:
        turn = next(self._turns) % len(replicas)
        return replicas[turn:] + replicas[:turn]


def _at_random(replicas: list[Replica], first_key: int) -> list[Replica]:
    return random.sample(replicas, len(replicas))


def _by_weight(replicas: list[Replica], first_key: int) -> list[Replica]:
    return _drawn_first(replicas, [float(replica.weight) for replica in replicas])


def _by_latency(replicas: list[Replica], first_key: int) -> list[Replica]:
    """The faster a replica answers and the less it owes, the likelier it is the first."""
    now_s = time.monotonic()
    return _drawn_first(replicas, [1 / _expected_s(replica, now_s) for replica in replicas])


def _expected_s(replica: Replica, now_s: float) -> float:
    health = replica.health
    # It may hang: what it already makes others wait counts before they have an answer.
    oldest_s = next(iter(list(health.in_flight.values())), now_s)
    latency_s = max(health.latency_s, now_s - oldest_s, LATENCY_MIN_S)
    return latency_s * (1 + len(health.in_flight))


def _drawn_first(replicas: list[Replica], weights: list[float]) -> list[Replica]:
    first = random.choices(range(len(replicas)), weights)[0]  # noqa: S311
    return replicas[first:] + replicas[:first]


class _Ring:
    """Consistent hashing: a batch goes to the same replica as long as that lives, and when one
    goes only its own batches move."""

    def __init__(self, replicas: Sequence[Replica]) -> None:
        points = sorted(
            (murmur3_32(f"{replica.endpoint}-{number}".encode()), index)
            for index, replica in enumerate(replicas)
            for number in range(RING_POINTS_PER_REPLICA)
        )
        self._hashes = [point for point, _ in points]
        self._owners = [replicas[index] for _, index in points]

    def order(self, replicas: list[Replica], first_key: int) -> list[Replica]:
        at = bisect.bisect_left(self._hashes, murmur3_32(first_key.to_bytes(8, "little")))
        live = {replica.endpoint for replica in replicas}
        ordered: dict[Endpoint, Replica] = {}
        for owner in itertools.chain(self._owners[at:], self._owners[:at]):
            if owner.endpoint in live:
                ordered.setdefault(owner.endpoint, owner)
                if len(ordered) == len(live):
                    break
        return list(ordered.values())
