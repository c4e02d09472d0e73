"""What a predictor counts, for /status and /metrics."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ctr_serving.cached_source import cache_status
from ctr_serving.model_slot import ModelSlot
from cube_core.histogram import Histogram

STAGES = ("queue", "seek", "infer")
OUTCOMES = ("ok", "degraded", "bad_request", "limit", "timeout", "failed", "dropped")
_BUCKETS_S = (
    *(base * scale for scale in (1e-4, 1e-3, 1e-2, 1e-1) for base in (1, 2, 5)),
    1.0,
    2.0,
    5.0,
)


class Counters(Collector):
    """Counts of one predictor; written on its event loop only.

    Attributes:
        requests: by one of OUTCOMES; dropped are those whose caller went away.
        pending: requests under way.
        rows: instances predicted.
        missing_by_slot: int64[slots], keys that had no row and got the default vector.
        failed_by_slot: int64[slots], keys whose shard failed and that got it for that reason.
        request_seconds: from a request's arrival to its answer.
        queues: each says how many rows wait in it.
        registry: of Prometheus, with all of these.

    Args:
        dict_names: of the slots; "" for a model that asks no shard servers.
    """

    def __init__(self, *slots: ModelSlot[Any], dict_names: Sequence[str] = ()) -> None:
        self._slots = slots
        self._dict_names = dict_names or [""] * len(slots)
        self.requests: Tally[str] = Tally()
        self.pending = 0
        self.rows = 0
        self.missing_by_slot: NDArray[np.int64] = np.zeros(0, np.int64)
        self.failed_by_slot: NDArray[np.int64] = np.zeros(0, np.int64)
        self.request_seconds = Histogram(_BUCKETS_S)
        self.queues: list[Callable[[], int]] = []
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._stage_seconds = {stage: Histogram(_BUCKETS_S) for stage in STAGES}

    def observe_batch(self, queue_s: float, seek_s: float, infer_s: float) -> None:
        """Counts the times of one batch; `queue_s` is what its first request waited."""
        self.observe("queue", queue_s)
        self.observe("seek", seek_s)
        self.observe("infer", infer_s)

    def observe(self, stage: str, seconds: float) -> None:
        """Counts the time of one of STAGES."""
        self._stage_seconds[stage].add(seconds)

    def stage_seconds(self) -> dict[str, dict[str, float]]:
        """Of each of STAGES, how many times were at most each bound and over the one below it, and
        their `sum`."""
        return {stage: each.counts() for stage, each in self._stage_seconds.items()}

    def count_missing(self, by_slot: NDArray[np.int64]) -> None:
        """Adds int64[slots]; models of another number of slots make the sums longer."""
        self.missing_by_slot = _sum(self.missing_by_slot, by_slot)

    def count_failed(self, by_slot: NDArray[np.int64]) -> None:
        """As `count_missing`, of keys whose shard failed."""
        self.failed_by_slot = _sum(self.failed_by_slot, by_slot)

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "ctr_requests", "Prediction requests by outcome", labels=["outcome"]
        )
        for outcome in OUTCOMES:
            requests.add_metric([outcome], self.requests[outcome])
        yield requests
        yield HistogramMetricFamily(
            "ctr_request_seconds",
            "Time from a request's arrival to its answer",
            buckets=self.request_seconds.buckets(),
            sum_value=self.request_seconds.sum_s,
        )
        yield GaugeMetricFamily("ctr_requests_pending", "Requests under way", value=self.pending)
        queued = sum(each() for each in self.queues)
        yield GaugeMetricFamily("ctr_queue_rows", "Instances that wait for a run", value=queued)
        yield CounterMetricFamily("ctr_rows", "Instances predicted", value=self.rows)
        yield _by_slot(
            "ctr_missing_keys", "Keys without a row, answered by the default", self.missing_by_slot
        )
        yield _by_slot(
            "ctr_failed_keys",
            "Keys whose shard failed, answered by the default",
            # A rate needs the zeros before the first.
            _sum(self.failed_by_slot, np.zeros_like(self.missing_by_slot)),
        )
        switches = sum(slot.switch_count for slot in self._slots)
        yield CounterMetricFamily("ctr_model_switches", "Models taken into service", value=switches)
        refusals = sum(slot.refusal_count for slot in self._slots)
        yield CounterMetricFamily("ctr_model_refusals", "Times a model was refused", value=refusals)
        yield from _cache_metrics(self._slots)
        times = HistogramMetricFamily(
            "ctr_stage_seconds", "Time of the stages of a batch", labels=["stage"]
        )
        for stage, each in self._stage_seconds.items():
            times.add_metric([stage], each.buckets(), each.sum_s)
        yield times
        yield from self._models()
        # A supervisor adds its own.
        yield CounterMetricFamily(
            "ctr_worker_restarts", "Workers that ended and were started again", value=0
        )

    def _models(self) -> Iterator[Metric]:
        model = GaugeMetricFamily(
            "ctr_model",
            "Processes that serve the model of this pass",
            labels=["engine", "dict", "version"],
        )
        problem = GaugeMetricFamily(
            "ctr_model_problem",
            "Processes that have no model, or refuse the newest one or cannot fetch it",
            labels=["engine"],
        )
        for slot, dict_name in zip(self._slots, self._dict_names, strict=True):
            if slot.engine is not None:
                model.add_metric([slot.name, dict_name, slot.engine.manifest.version], 1)
            problem.add_metric([slot.name], int(bool(slot.problem or slot.source_problem)))
        yield from (model, problem)


def _sum(total: NDArray[np.int64], by_slot: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(by_slot) > len(total):
        total = np.concatenate([total, np.zeros(len(by_slot) - len(total), np.int64)])
    total[: len(by_slot)] += by_slot
    return total


def _by_slot(name: str, text: str, counts: NDArray[np.int64]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["slot"])
    for slot, count in enumerate(counts.tolist()):
        family.add_metric([str(slot)], count)
    return family


def _cache_metrics(slots: Sequence[ModelSlot[Any]]) -> Iterator[Metric]:
    hits = CounterMetricFamily(
        "ctr_cache_hits", "Keys answered by the cache of hot keys", labels=["engine"]
    )
    misses = CounterMetricFamily("ctr_cache_misses", "Keys that it lacked", labels=["engine"])
    keys = GaugeMetricFamily("ctr_cache_keys", "Keys that it has", labels=["engine"])
    capacity = GaugeMetricFamily(
        "ctr_cache_capacity_keys", "Keys that it has room for", labels=["engine"]
    )
    for slot in slots:
        cache = cache_status(slot.engine and slot.engine.embedding)
        if cache is not None:
            hits.add_metric([slot.name], cache["hits"])
            misses.add_metric([slot.name], cache["misses"])
            keys.add_metric([slot.name], cache["keys"])
            capacity.add_metric([slot.name], cache["capacity_keys"])
    yield from (hits, misses, keys, capacity)
