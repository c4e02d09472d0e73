"""How each server answered lately, and which of them are put aside until a probe succeeds."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from cube_core.endpoint import Endpoint

FAILURES_MAX = 3
"""Requests in a row that a server may fail, or be overtaken in, before it is put aside."""

PROBE_INTERVAL_MIN_S = 0.1
PROBE_INTERVAL_MAX_S = 3.0
"""A server that is put aside is probed first after the one, then ever later up to the other."""

DOUBT_INTERVAL_S = 3.0
"""A server whose replicas answer from other versions is asked this often whether it is late."""

_LATENCY_SHARE_OF_NEWEST = 0.2


class EndpointHealth:
    """How one server answered lately. Threads share it without a lock: each change is one atomic
    step, and a count that is off by one costs one request more or less.

    Attributes:
        in_flight: when each request that it owes an answer to was sent, by correlation id.
        latency_s: of its answers, the newest weighing most; 0 before any.
        is_aside: its circuit is open: others are asked first.
        is_doubted: a replica of it answered from another version: it may be late.
    """

    __slots__ = (
        "_doubt_due_s",
        "_failures",
        "_on_aside",
        "_on_doubt",
        "_probe_interval_s",
        "answer_limit_s",
        "endpoint",
        "in_flight",
        "is_aside",
        "is_doubted",
        "latency_s",
        "probe_due_s",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        on_aside: Callable[[EndpointHealth], None],
        on_doubt: Callable[[], None],
    ) -> None:
        self.endpoint = endpoint
        self.in_flight: dict[int, float] = {}
        self.latency_s = 0.0
        self.is_aside = False
        self.is_doubted = False
        self.probe_due_s = 0.0
        self.answer_limit_s: float | None = None
        self._doubt_due_s = 0.0
        self._failures = 0
        self._probe_interval_s = PROBE_INTERVAL_MIN_S
        self._on_aside = on_aside
        self._on_doubt = on_doubt

    def sent(self, correlation_id: int, now_s: float) -> None:
        self.in_flight[correlation_id] = now_s

    def answered(self, correlation_id: int) -> None:
        sent_s = self.in_flight.pop(correlation_id, None)
        if sent_s is not None:
            self._weigh(time.monotonic() - sent_s)
        self._failures = 0
        if not self.is_aside:
            self._probe_interval_s = PROBE_INTERVAL_MIN_S

    def failed(self, correlation_id: int) -> None:
        """It gave no answer: lost, refused, late, or about to stop."""
        self.in_flight.pop(correlation_id, None)
        self._count_failure(None)

    def overtaken(self, correlation_id: int, limit_s: float) -> None:
        """Another replica, asked `limit_s` later, answered first."""
        sent_s = self.in_flight.pop(correlation_id, None)
        if sent_s is not None:
            self._weigh(time.monotonic() - sent_s)
        self._count_failure(limit_s)

    def dropped(self, correlation_id: int) -> None:
        """Nobody waits for the answer any more, which says nothing about the server."""
        self.in_flight.pop(correlation_id, None)

    def probed(self, succeeded: bool, now_s: float) -> None:
        if succeeded:
            # On trial: the next failure puts it aside again, and for longer.
            self._failures = FAILURES_MAX - 1
            self.is_aside = False
        self._probe_interval_s = min(2 * self._probe_interval_s, PROBE_INTERVAL_MAX_S)
        self.probe_due_s = now_s + self._probe_interval_s

    def doubt(self, now_s: float) -> None:
        """It and its replicas do not all answer from the same version."""
        if now_s >= self._doubt_due_s and not self.is_aside:
            self._doubt_due_s = now_s + DOUBT_INTERVAL_S
            self.is_doubted = True
            self._on_doubt()

    def asked_whether_late(self, is_late: bool) -> None:
        """What it said of itself ends the doubt."""
        self.is_doubted = False
        if is_late and not self.is_aside:
            self._failures = FAILURES_MAX
            self._put_aside(None)

    def _weigh(self, latency_s: float) -> None:
        step_s = latency_s - self.latency_s
        share = _LATENCY_SHARE_OF_NEWEST if self.latency_s else 1.0
        self.latency_s += share * step_s

    def _count_failure(self, answer_limit_s: float | None) -> None:
        self._failures += 1
        if self._failures >= FAILURES_MAX and not self.is_aside:
            self._put_aside(answer_limit_s)

    def _put_aside(self, answer_limit_s: float | None) -> None:
        self.answer_limit_s = answer_limit_s
        self.probe_due_s = time.monotonic() + self._probe_interval_s
        self.is_aside = True
        self._on_aside(self)


class HealthBoard:
    """The health of every server that a client knows.

    Args:
        on_aside: called in the thread of the seek when a server is put aside.
        on_doubt: called there when one is to be asked whether it is late.
    """

    def __init__(
        self, on_aside: Callable[[EndpointHealth], None], on_doubt: Callable[[], None]
    ) -> None:
        self._on_aside = on_aside
        self._on_doubt = on_doubt
        self._by_endpoint: dict[Endpoint, EndpointHealth] = {}

    def of(self, endpoint: Endpoint) -> EndpointHealth:
        health = self._by_endpoint.get(endpoint)
        if health is None:
            made = EndpointHealth(endpoint, self._on_aside, self._on_doubt)
            health = self._by_endpoint.setdefault(endpoint, made)
        return health

    def aside(self) -> list[EndpointHealth]:
        return [health for health in list(self._by_endpoint.values()) if health.is_aside]

    def doubted(self) -> list[EndpointHealth]:
        return [health for health in list(self._by_endpoint.values()) if health.is_doubted]

    def keep_only(self, endpoints: Collection[Endpoint]) -> None:
        """Forgets servers that the topology no longer names."""
        for endpoint in self._by_endpoint.keys() - endpoints:
            self._by_endpoint.pop(endpoint, None)
