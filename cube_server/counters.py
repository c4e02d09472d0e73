"""What a serving process counts; the counts of several processes are added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from cube_core._native import LATENCY_BOUNDS_US, Seeker
from cube_core.wire.server import RpcServer

Counts = Mapping[str, int]

LATENCY_COUNTS = (*(f"latency_us_{bound}" for bound in LATENCY_BOUNDS_US), "latency_us_more")
"""Names of the counts of `Seeker.latency_counts`, each of one bucket alone."""


def seek_counts(seeker: Seeker) -> dict[str, int]:
    """Of the seeks, whatever wire they came by."""
    return {
        "requests": seeker.request_count,
        "keys": seeker.key_count,
        "missing_keys": seeker.missing_count,
        "errors": seeker.error_count,
        "request_bytes": seeker.request_bytes,
        "response_bytes": seeker.response_bytes,
        "latency_sum_ns": seeker.latency_sum_ns,
        **dict(zip(LATENCY_COUNTS, seeker.latency_counts, strict=True)),
    }


def wire_counts(server: RpcServer) -> dict[str, int]:
    """Of the baidu_std and HTTP port."""
    counters = server.counters
    return {
        "connections": server.connections_open,
        "connections_accepted": counters.connections_accepted,
        "connections_refused": counters.connections_refused,
        "connections_idle": counters.connections_idle,
        "peers_cut_off": counters.peers_cut_off,
    }


def added(counts: Iterable[Counts]) -> dict[str, int]:
    """The sum of each count."""
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
