"""What servers tell of themselves, and what two such readings say of the time between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cube_core.errors import RpcError

_LATENCY_PREFIX = "latency_us_"
_TEXT_MAX = 200
_SLOTS_MAX = 1000

_T = TypeVar("_T", bound=BaseModel)

Histogram = Mapping[float, float]
"""How many values were at most each bound, in seconds, and over the one below it."""


@dataclass(frozen=True)
class Reading:
    """What one server told at one time.

    Attributes:
        at_s: `time.monotonic()`.
        version: that it answers from; of a CTR server that of its model. "" for none.
        facts: what holds at this time, by name.
        counts: what was counted since its start.
        latencies: histograms since its start.
        by_slot: missing keys since its start; of CTR servers only.
        started_at_s: Unix seconds of its start, where it tells it. Behind an address that several
            share, readings are of one or the other.
    """

    at_s: float
    version: str
    facts: Mapping[str, Any]
    counts: Mapping[str, float]
    latencies: Mapping[str, Histogram]
    by_slot: Sequence[float] = ()
    started_at_s: float | None = None


@dataclass(frozen=True)
class Rates:
    """What two readings say of the time between them: counts a second, and histograms."""

    a_second: Mapping[str, float] = field(default_factory=dict)
    latencies: Mapping[str, Histogram] = field(default_factory=dict)

    def share(self, part: str, *whole: str) -> float | None:
        """Of a count in the sum of others; None when there was none of these."""
        total = sum(self.a_second.get(name, 0.0) for name in whole)
        return self.a_second.get(part, 0.0) / total if total > 0 else None

    def percentile(self, latency: str, share: float) -> float | None:
        """Seconds; None when nothing was measured."""
        return percentile(self.latencies.get(latency, {}), share)


class _Lenient(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Table(_Lenient):
    version: str = Field(max_length=_TEXT_MAX)
    role: str
    key_count: int
    memory_bytes: int


class _Dict(_Lenient):
    versions: list[_Table]


class _ServerStatus(_Lenient):
    dicts: dict[str, _Dict]
    counters: dict[str, float]


class _Model(_Lenient):
    version: str = Field(max_length=_TEXT_MAX)


class _Cache(_Lenient):
    hits: float
    misses: float


class _Engine(_Lenient):
    dict_name: str = ""
    model: _Model | None = None
    problem: str = ""
    source_problem: str = ""
    cache: _Cache | None = None


class _CtrStatus(_Lenient):
    engines: list[_Engine] = Field(min_length=1)
    requests: dict[str, float]
    rows: float
    missing_keys_by_slot: list[float]
    stage_seconds: dict[str, dict[str, float]] = {}
    started_at_s: float | None = None


def server_reading(status: object, dict_name: str, at_s: float) -> Reading:
    """Of the answer of a shard server to /status.

    Raises:
        RpcError: it is no such answer.
    """
    told = _validated(_ServerStatus, status)
    tables = told.dicts[dict_name].versions if dict_name in told.dicts else []
    current = next((each for each in tables if each.role == "current"), None)
    facts = {
        "keys": current.key_count if current else 0,
        "memory_bytes": sum(each.memory_bytes for each in tables),
        "loaded": [each.version for each in tables],
    }
    counts = {name: n for name, n in told.counters.items() if not name.startswith("latency_")}
    latencies = {
        _bound_s(name): n for name, n in told.counters.items() if name.startswith(_LATENCY_PREFIX)
    }
    version = current.version if current else ""
    return Reading(at_s, version, facts, counts, {"seek": latencies})


def ctr_reading(status: object, dict_name: str, at_s: float) -> Reading:
    """Of the answer of a CTR server to /status.

    Raises:
        RpcError: it is no such answer.
    """
    told = _validated(_CtrStatus, status)
    engine = next((each for each in told.engines if each.dict_name == dict_name), told.engines[0])
    counts = {
        "rows": told.rows,
        "requests": sum(told.requests.values()),
        "failed": sum(told.requests.get(name, 0) for name in ("failed", "timeout", "limit")),
    }
    if engine.cache is not None:
        counts |= {"cache_hits": engine.cache.hits, "cache_misses": engine.cache.misses}
    latencies = {
        stage: {float(bound): n for bound, n in times.items() if bound != "sum"}
        for stage, times in told.stage_seconds.items()
    }
    # What is not on its machine it cannot take, and does not miss.
    problem = engine.source_problem or engine.problem
    facts = {"problem": problem[:_TEXT_MAX], "has_cache": engine.cache is not None}
    version = engine.model.version if engine.model else ""
    slots = told.missing_keys_by_slot[:_SLOTS_MAX]
    return Reading(at_s, version, facts, counts, latencies, slots, told.started_at_s)


def rates_between(before: Reading, after: Reading) -> Rates | None:
    """None when the server has started anew between them, or no time has passed."""
    seconds = after.at_s - before.at_s
    grown = {name: n - before.counts.get(name, 0.0) for name, n in after.counts.items()}
    # Of counts that may fall, such as open connections, nobody asks the rate.
    is_another = before.started_at_s != after.started_at_s
    if is_another or seconds <= 0 or grown.get("requests", 0.0) < 0:
        return None
    latencies = {
        name: _difference(now, before.latencies.get(name, {}))
        for name, now in after.latencies.items()
    }
    return Rates({name: n / seconds for name, n in grown.items()}, latencies)


def added(rates: Sequence[Rates]) -> Rates:
    """Of several servers together."""
    counts: dict[str, float] = {}
    latencies: dict[str, dict[float, float]] = {}
    for each in rates:
        for name, rate in each.a_second.items():
            counts[name] = counts.get(name, 0.0) + rate
        for name, histogram in each.latencies.items():
            sums = latencies.setdefault(name, {})
            for bound, n in histogram.items():
                sums[bound] = sums.get(bound, 0.0) + n
    return Rates(counts, latencies)


def missing_by_slot(before: Reading, after: Reading) -> list[float]:
    """Missing keys of each slot for 100 rows between two readings; empty without rows, or when the
    server has started anew."""
    rows = after.counts["rows"] - before.counts["rows"]
    if rows <= 0:
        return []
    pairs = itertools.zip_longest(after.by_slot, before.by_slot[: len(after.by_slot)], fillvalue=0)
    return [max(0.0, now - then) * 100 / rows for now, then in pairs]


def percentile(histogram: Histogram, share: float) -> float | None:
    """The bound below which `share` of the values are, taken as evenly spread in their bucket; the
    lower end of the last bucket, which has no upper one. None without values."""
    total = sum(histogram.values())
    if total <= 0:
        return None
    below, seen = 0.0, 0.0
    for bound in sorted(histogram):
        count = histogram[bound]
        if count > 0 and seen + count >= share * total:
            if bound == float("inf"):
                return below
            return below + (bound - below) * (share * total - seen) / count
        below, seen = bound, seen + count
    return below


def _difference(after: Histogram, before: Histogram) -> Histogram:
    return {bound: n - before.get(bound, 0.0) for bound, n in after.items()}


def _bound_s(name: str) -> float:
    bound = name.removeprefix(_LATENCY_PREFIX)
    return float("inf") if bound == "more" else float(bound) / 1e6


def _validated(model: type[_T], status: object) -> _T:
    try:
        return model.model_validate(status)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RpcError(f"its /status is none of this service: {where}: {first['msg']}") from error
