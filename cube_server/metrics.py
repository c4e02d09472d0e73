"""What a shard server counts, in the form Prometheus reads."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from cube_core._native import LATENCY_BOUNDS_US
from cube_core.disk_metrics import disk_metrics
from cube_server.control_plane import ServedDict
from cube_server.counters import LATENCY_COUNTS, Counts

_COUNTERS = {
    "requests": ("seek_requests", "Seeks answered or refused"),
    "keys": ("seek_keys", "Keys asked for"),
    "missing_keys": ("seek_missing_keys", "Keys that the table does not hold"),
    "request_bytes": ("seek_request_bytes", "Bytes of DictRequests"),
    "response_bytes": ("seek_response_bytes", "Bytes of DictResponses"),
    "errors": ("seek_errors", "Seeks answered with an error"),
    "connections_accepted": ("connections_accepted", "Connections accepted"),
    "connections_refused": ("connections_refused", "Connections over connections_max"),
    "connections_idle": ("connections_idle", "Connections over idle_timeout_ms"),
    "peers_cut_off": ("peers_cut_off", "Connections over a limit, or no frames"),
    "worker_restarts": ("worker_restarts", "Workers that ended and were started again"),
}


_BOUNDS_S = [*(str(bound_us / 1e6) for bound_us in LATENCY_BOUNDS_US), "+Inf"]


class ServerMetrics(Collector):
    """Renders the counts of all serving processes, and the loaded versions of each dict."""

    def __init__(self, dicts: Sequence[ServedDict], data_dir: Path) -> None:
        self._dicts = dicts
        self._data_dir = data_dir
        self._counts: Counts = {}
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self, counts: Counts) -> bytes:
        """Everything, in Prometheus' text form; any thread may ask."""
        with self._lock:
            self._counts = counts
            return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        for count, (name, help_text) in _COUNTERS.items():
            yield CounterMetricFamily(
                f"cube_server_{name}", help_text, value=self._counts.get(count, 0)
            )
        yield GaugeMetricFamily(
            "cube_server_connections",
            "Open connections",
            value=self._counts.get("connections", 0),
        )
        yield GaugeMetricFamily(
            "cube_server_ready",
            "1 when a version of every dict is served, the wanted one if one is named",
            value=int(not any(each.problem for each in self._dicts)),
        )
        yield self._latencies()
        yield from self._versions()
        yield from self._tables()
        yield from self._patches()
        yield from disk_metrics("cube_server", {"data": self._data_dir})

    def _latencies(self) -> Metric:
        counts = itertools.accumulate(self._counts[name] for name in LATENCY_COUNTS)
        buckets = list(zip(_BOUNDS_S, counts, strict=True))
        return HistogramMetricFamily(
            "cube_server_seek_seconds",
            "Time to answer a seek in the process, without waiting before it",
            buckets=buckets,
            sum_value=self._counts["latency_sum_ns"] / 1e9,
        )

    def _versions(self) -> Iterator[Metric]:
        labels = ["dict", "version"]
        served = GaugeMetricFamily(
            "cube_server_version", "1 for the version that answers seeks", labels=labels
        )
        wanted = GaugeMetricFamily(
            "cube_server_wanted_version", "1 for the version that is to answer", labels=labels
        )
        for each in self._dicts:
            if (current := each.versions.current) is not None:
                served.add_metric([each.shown_name, str(current.version)], 1)
            if (version := each.versions.wanted.version) is not None:
                wanted.add_metric([each.shown_name, str(version)], 1)
        yield from (served, wanted)

    def _tables(self) -> Iterator[Metric]:
        labels = ["dict", "version", "role"]
        keys = GaugeMetricFamily("cube_server_table_keys", "Keys of a loaded table", labels=labels)
        memory = GaugeMetricFamily(
            "cube_server_table_bytes", "Memory or mapped bytes of a loaded table", labels=labels
        )
        load = GaugeMetricFamily(
            "cube_server_table_load_seconds", "Time it took to load a table", labels=labels
        )
        for each in self._dicts:
            for role, loaded in each.versions.loaded():
                values = [loaded.table.dict_name, str(loaded.version), role]
                keys.add_metric(values, loaded.table.key_count)
                memory.add_metric(values, loaded.table.memory_bytes)
                load.add_metric(values, loaded.load_s)
        yield from (keys, memory, load)

    def _patches(self) -> Iterator[Metric]:
        labels = ["dict", "version", "role"]
        rows = GaugeMetricFamily(
            "cube_server_delta_rows", "Keys that patches changed over a whole table", labels=labels
        )
        patches = CounterMetricFamily(
            "cube_server_patches", "Patches laid over what was loaded", labels=["dict"]
        )
        folds = CounterMetricFamily(
            "cube_server_folds", "Times that patches were folded into a base", labels=["dict"]
        )
        failed = CounterMetricFamily(
            "cube_server_folds_failed", "Folds that could not be written", labels=["dict"]
        )
        replaced = GaugeMetricFamily(
            "cube_server_replaced_bytes",
            "Memory of versions that stay a while after they were replaced",
            labels=["dict"],
        )
        seconds = GaugeMetricFamily(
            "cube_server_fold_seconds", "Time that the last fold took", labels=["dict"]
        )
        for each in self._dicts:
            for role, loaded in each.versions.loaded():
                values = [loaded.table.dict_name, str(loaded.version), role]
                rows.add_metric(values, loaded.delta_rows)
            counts = each.versions.folding.counts
            name = [each.shown_name]
            patches.add_metric(name, each.versions.patch_count)
            folds.add_metric(name, counts.done)
            failed.add_metric(name, counts.failed)
            seconds.add_metric(name, counts.last_s)
            replaced.add_metric(name, each.versions.replaced_bytes)
        yield from (rows, patches, folds, failed, seconds, replaced)
