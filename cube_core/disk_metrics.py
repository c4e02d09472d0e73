"""Room on the disks of a role, for Prometheus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric


def disk_metrics(prefix: str, directories: Mapping[str, Path]) -> Iterator[Metric]:
    """`<prefix>_disk_free_bytes` and `<prefix>_disk_size_bytes` of each directory, by the name that
    is its label; what cannot be looked at has no value. Blocks on the disk."""
    free = GaugeMetricFamily(
        f"{prefix}_disk_free_bytes",
        "Room that is left on the disk of a directory",
        labels=["directory"],
    )
    size = GaugeMetricFamily(
        f"{prefix}_disk_size_bytes", "Size of the disk of a directory", labels=["directory"]
    )
    for name, directory in directories.items():
        try:
            usage = shutil.disk_usage(directory)
        except OSError:
            continue
        free.add_metric([name], usage.free)
        size.add_metric([name], usage.total)
    yield from (free, size)
