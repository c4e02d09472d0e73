"""The daemon's state in the form Prometheus reads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cube_core.disk_metrics import disk_metrics
from cube_core.versions import Version
from cube_transfer.daemon import Daemon
from cube_transfer.deploy_counts import KINDS, RESULTS, STEPS
from cube_transfer.listing import waiting_patches
from cube_transfer.state import PassRecord, Stage, State


class TransferMetrics(Collector):
    """Reads the daemon's state when it is asked for."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._waiting_patches = 0
        self._bad_lines: dict[str, int] = {}
        self._lock = threading.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def look(self) -> None:
        """Takes note of what only the event loop may look at; call it there, before `text`."""
        daemon = self._daemon
        listed = daemon.listed_patches().entries
        waiting = waiting_patches(listed, daemon.state, daemon.deployer.under_way)
        self._waiting_patches = sum(1 for _ in waiting)
        self._bad_lines = {file: len(errors) for file, errors in daemon.bad_lines().items()}

    def text(self) -> bytes:
        """Everything, in Prometheus' text form. Blocks on the disk."""
        with self._lock:
            return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        yield from self._versions()
        yield from self._deployments()
        yield from self._under_way()
        yield from self._replicas()
        yield from self._donefiles()
        yield from disk_metrics("cube_transfer", self._directories())

    def _versions(self) -> Iterator[Metric]:
        state, dict_name = self._daemon.state, self._daemon.settings.conf.dict_name
        wanted = GaugeMetricFamily(
            "cube_transfer_wanted_version",
            "1 for the version that all servers are to serve",
            labels=["dict", "version"],
        )
        announced = GaugeMetricFamily(
            "cube_transfer_served_pass_timestamp_seconds",
            "When the donefile named the pass that is served",
            labels=["dict"],
        )
        if state.wanted:
            wanted.add_metric([dict_name, state.wanted], 1)
            record = state.pass_of(Version.parse(state.wanted))
            times = record.reached_at_s.values() if record else ()
            announced_at_s = (record and record.announced_at_s) or min(times, default=0.0)
            if announced_at_s:
                announced.add_metric([dict_name], announced_at_s)
        yield from (wanted, announced)
        yield GaugeMetricFamily(
            "cube_transfer_paused", "1 while no new pass is begun", value=int(state.paused)
        )

    def _deployments(self) -> Iterator[Metric]:
        counts = self._daemon.deployer.counts
        results = CounterMetricFamily(
            "cube_transfer_deployments", "Deployments that have ended", labels=["kind", "result"]
        )
        for kind in KINDS:
            for result in RESULTS:
                results.add_metric([kind, result], counts.results[kind, result])
        last = GaugeMetricFamily(
            "cube_transfer_last_deployment_timestamp_seconds",
            "When the last deployment ended like this; 0: never",
            labels=["result"],
        )
        for stage in (Stage.DONE, Stage.FAILED):
            last.add_metric([stage.value], _last_time(self._daemon.state, stage))
        steps = HistogramMetricFamily(
            "cube_transfer_step_seconds",
            "Time of each step, its attempts included",
            labels=["step"],
        )
        failures = CounterMetricFamily(
            "cube_transfer_step_failures", "Attempts at a step that failed", labels=["step"]
        )
        for step in STEPS:
            times = counts.step_seconds[step]
            steps.add_metric([step], times.buckets(), times.sum_s)
            failures.add_metric([step], counts.step_failures[step])
        yield from (results, last, steps, failures)

    def _under_way(self) -> Iterator[Metric]:
        deployer = self._daemon.deployer
        record: PassRecord | None = deployer.under_way
        is_failing = bool(record and (deployer.error or self._daemon.fleet.shards_down()))
        yield GaugeMetricFamily(
            "cube_transfer_deployment_started_timestamp_seconds",
            "When this process began the deployment that is under way; 0: none is",
            value=deployer.started_at_s if record else 0,
        )
        yield GaugeMetricFamily(
            "cube_transfer_deployment_failing",
            "1 while the step that is under way has to be tried again",
            value=int(is_failing),
        )
        step = GaugeMetricFamily(
            "cube_transfer_deployment_step", "1 for the step that is under way", labels=["step"]
        )
        for name in STEPS:
            step.add_metric([name], int(bool(record and record.step == name)))
        yield step

    def _replicas(self) -> Iterator[Metric]:
        labels = ["dict", "shard", "replica"]
        dict_name, wanted = self._daemon.settings.conf.dict_name, self._daemon.state.wanted
        ready = GaugeMetricFamily(
            "cube_transfer_replica_ready",
            "1 for a server that answered from the wanted version when last asked",
            labels=labels,
        )
        attempts = GaugeMetricFamily(
            "cube_transfer_replica_failed_attempts",
            "Attempts at a server that failed in a row",
            labels=labels,
        )
        for link in self._daemon.fleet.links:
            values = [dict_name, str(link.replica.shard), link.replica.name]
            ready.add_metric(values, int(link.is_at(wanted)))
            attempts.add_metric(values, link.attempts)
        yield from (ready, attempts)

    def _donefiles(self) -> Iterator[Metric]:
        donefiles = self._daemon.donefiles
        watches = {"base": donefiles.bases}
        if donefiles.patches is not None:
            watches["patch"] = donefiles.patches
        readable = GaugeMetricFamily(
            "cube_transfer_donefile_readable", "0 while it cannot be read", labels=["file"]
        )
        passes = GaugeMetricFamily(
            "cube_transfer_donefile_passes", "Usable lines of a donefile", labels=["file"]
        )
        bad_lines = GaugeMetricFamily(
            "cube_transfer_donefile_bad_lines", "Lines that cannot be used", labels=["file"]
        )
        for name, watch in watches.items():
            readable.add_metric([name], int(not watch.error))
            passes.add_metric([name], len(watch.reading.entries))
            bad_lines.add_metric([name], self._bad_lines[name])
        yield from (readable, passes, bad_lines)
        yield GaugeMetricFamily(
            "cube_transfer_patches_waiting",
            "Patches that are listed and not deployed yet",
            value=self._waiting_patches,
        )

    def _directories(self) -> dict[str, Path]:
        settings = self._daemon.settings
        found = {"output": settings.output_address, "tmp": Path(settings.conf.tmp_address)}
        if settings.model_deploy_path is not None:
            found["model"] = settings.model_deploy_path
        return found


def _last_time(state: State, stage: Stage) -> float:
    times = (
        record.reached_at_s.get(stage.value, 0.0)
        for record in state.records()
        if record.stage is stage
    )
    return max(times, default=0.0)
