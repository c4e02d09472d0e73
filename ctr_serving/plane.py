"""What operators see of a predictor, of one process or of several together."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ctr_serving.assembly import Assembly, EngineSlot
from ctr_serving.cached_source import cache_status, joined_cache

_SUMMED = ("requests_pending", "rows", "missing_keys", "failed_keys")
_STARTED_AT_S = round(time.time(), 3)
_SUMMED_OF_ENGINE = ("switches", "refusals")
_SUMMED_BY_SLOT = ("missing_keys_by_slot", "failed_keys_by_slot")


class Plane(Protocol):
    """Answers /ready, /status and /metrics."""

    async def ready(self) -> str:
        """Why predictions cannot be made; "" when they can."""

    async def status(self) -> dict[str, Any]:
        """As JSON."""

    async def metrics(self) -> bytes:
        """In the text format of Prometheus."""


class ProcessPlane:
    """Of this process alone."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def ready(self) -> str:
        for each in self._assembly.engines:
            if each.slot.engine is None:
                return f"no model is loaded yet: {each.slot.problem}"
        return ""

    async def status(self) -> dict[str, Any]:
        return status_of(self._assembly)

    async def metrics(self) -> bytes:
        counted = generate_latest(self._assembly.counters.registry)
        # Counts every open file by name, which would hold the loop.
        return counted + await asyncio.to_thread(generate_latest, self._process)


def status_of(assembly: Assembly) -> dict[str, Any]:
    """What /status answers: the first engine's fields, counters, and all engines."""
    counters = assembly.counters
    engines = [_engine_status(each) for each in assembly.engines]
    return {
        **engines[0],
        "pid": os.getpid(),
        "started_at_s": _STARTED_AT_S,
        "requests_pending": counters.pending,
        "requests": dict(counters.requests),
        "rows": counters.rows,
        "missing_keys": int(counters.missing_by_slot.sum()),
        "missing_keys_by_slot": counters.missing_by_slot.tolist(),
        "failed_keys": int(counters.failed_by_slot.sum()),
        "failed_keys_by_slot": counters.failed_by_slot.tolist(),
        "stage_seconds": counters.stage_seconds(),
        "engines": engines,
    }


def _engine_status(each: EngineSlot) -> dict[str, Any]:
    engine, slot = each.slot.engine, each.slot
    model = engine and {
        "version": engine.manifest.version,
        "directory": str(engine.directory),
        "load_seconds": round(engine.load_seconds, 3),
        "switched_at_s": round(slot.switched_at_s, 3),
    }
    return {
        "engine": each.conf.name,
        "source_problem": slot.source_problem,
        "sparse_param_service_type": each.conf.sparse_service,
        "dict_name": each.conf.dict_name,
        "model": model,
        "problem": slot.problem,
        "switches": slot.switch_count,
        "refusals": slot.refusal_count,
        "cache": cache_status(engine and engine.embedding),
    }


def joined_status(statuses: Sequence[dict[str, Any]], pid: int) -> dict[str, Any]:
    """The counts of all workers; the model of each engine as of the first worker, or of one where
    it has a problem, and under `workers` what each says for itself."""
    by_engine = zip(*(each["engines"] for each in statuses), strict=True)
    engines = [_joined_engine(of_workers) for of_workers in by_engine]
    joined = {**statuses[0], **engines[0], "pid": pid, "started_at_s": _STARTED_AT_S}
    joined["engines"] = engines
    for name in _SUMMED:
        joined[name] = sum(each[name] for each in statuses)
    for name in _SUMMED_BY_SLOT:
        joined[name] = _added([each[name] for each in statuses])
    joined["stage_seconds"] = {
        stage: _added_up(each["stage_seconds"][stage] for each in statuses)
        for stage in joined["stage_seconds"]
    }
    requests: Counter[str] = Counter()
    for each in statuses:
        requests.update(each["requests"])
    return joined | {"requests": dict(requests), "workers": list(statuses)}


def _joined_engine(of_workers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    troubled = next(
        (each for each in of_workers if each["problem"] or each["source_problem"]), of_workers[0]
    )
    caches = [each["cache"] for each in of_workers if each["cache"] is not None]
    return {
        **troubled,
        **{name: sum(each[name] for each in of_workers) for name in _SUMMED_OF_ENGINE},
        "cache": joined_cache(caches) if caches else None,
    }


def joined_metrics(texts: Sequence[str]) -> bytes:
    """The sums of all samples of the same name and labels; of the start the first."""
    registry = CollectorRegistry()
    registry.register(_Joined(texts))
    return generate_latest(registry)


def _joined_value(name: str, values: Sequence[float]) -> float:
    return min(values) if name == "process_start_time_seconds" else sum(values)


class _Joined(Collector):
    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text):
                families.setdefault(family.name, family)
                found = values.setdefault(family.name, {})
                for sample in family.samples:
                    key = sample.name, tuple(sample.labels.items())
                    found.setdefault(key, []).append(sample.value)
        for name, family in families.items():
            joined = Metric(name, family.documentation, family.type)
            for (sample_name, labels), each in values[name].items():
                joined.add_sample(sample_name, dict(labels), _joined_value(sample_name, each))
            yield joined


def _added_up(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in counts:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total


def _added(lists: Sequence[Sequence[int]]) -> list[int]:
    longest = max(map(len, lists))
    return [sum(each[place] for each in lists if place < len(each)) for place in range(longest)]
