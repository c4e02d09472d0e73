"""What a shard server counts, in the form Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cube_core._native import Seeker
from cube_core.wire.server import RpcServer
from cube_server.versions import DictVersions


class ServerMetrics(Collector):
    """Reads the counters of kernel, wire and versions when it is asked."""

    def __init__(self, seeker: Seeker, versions: DictVersions, server: RpcServer) -> None:
        self._seeker = seeker
        self._versions = versions
        self._server = server
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def text(self) -> bytes:
        """Everything, in Prometheus' text form."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        wire = self._server.counters
        for name, help_text, count in (
            ("seek_requests", "Seeks answered or refused", self._seeker.request_count),
            ("seek_keys", "Keys asked for", self._seeker.key_count),
            ("seek_missing_keys", "Keys that the table does not hold", self._seeker.missing_count),
            ("seek_errors", "Seeks answered with an error", self._seeker.error_count),
            ("connections_accepted", "Connections accepted", wire.connections_accepted),
            ("connections_refused", "Connections over connections_max", wire.connections_refused),
            ("connections_idle", "Connections over idle_timeout_ms", wire.connections_idle),
            ("peers_cut_off", "Connections over a limit, or no frames", wire.peers_cut_off),
        ):
            yield CounterMetricFamily(f"cube_server_{name}", help_text, value=count)
        yield GaugeMetricFamily(
            "cube_server_connections", "Open connections", value=self._server.connections_open
        )
        yield GaugeMetricFamily(
            "cube_server_ready",
            "1 when a version is served",
            value=int(bool(self._versions.served)),
        )
        yield from self._tables()

    def _tables(self) -> Iterator[Metric]:
        labels = ["version", "role"]
        keys = GaugeMetricFamily("cube_server_table_keys", "Keys of a loaded table", labels=labels)
        memory = GaugeMetricFamily(
            "cube_server_table_bytes", "Memory or mapped bytes of a loaded table", labels=labels
        )
        load = GaugeMetricFamily(
            "cube_server_table_load_seconds", "Time it took to load a table", labels=labels
        )
        for role, loaded in self._versions.loaded():
            values = [str(loaded.version), role]
            keys.add_metric(values, loaded.table.key_count)
            memory.add_metric(values, loaded.table.memory_bytes)
            load.add_metric(values, loaded.load_s)
        yield from (keys, memory, load)
