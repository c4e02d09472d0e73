"""What `cube capacity` tells, and that its figures are those that were measured."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cube_cluster import figures
from cube_cluster.capacity import GIB, Workload, plan
from cube_cluster.main import app
from cube_server.replaced import REPLACED_BYTES_MAX

RESULTS: Any = json.loads(
    (Path(__file__).parents[2] / "benchmarks/results.json").read_text(encoding="utf-8")
)
# How far a figure may be from what was measured last before it misleads.
FACTOR = 2.0


def seek_cpu_us(keys: int) -> float:
    (found,) = [
        each
        for each in RESULTS["server_cpu"]
        if each["server"] == "cube-server" and each["keys"] == keys
    ]
    return float(statistics.median(found["cpu_us"]))


def of_base(step: str) -> float:
    """Seconds of a step of the largest pass that was measured."""
    passes = [each for each in RESULTS["transfer"] if each["what"] == "base"]
    rows = max(each["rows"] for each in passes)
    times = [each["steps_s"][step] for each in passes if each["rows"] == rows]
    return float(statistics.median(times))


def base_bytes() -> float:
    rows = max(each["rows"] for each in RESULTS["transfer"] if each["what"] == "base")
    return float(rows * (figures.SEEK_VALUE_BYTES + figures.TABLE_BYTES_PER_KEY))


def ctr(name: str) -> float:
    (value,) = [each["value"] for each in RESULTS["ctr"] if each["name"] == name]
    return float(value)


MEASURED: dict[str, Callable[[], float]] = {
    "TABLE_BYTES_PER_KEY": lambda: RESULTS["kernel"][-1]["memory_overhead_bytes_per_key"],
    "SEEK_REQUEST_US": lambda: seek_cpu_us(26) - 26 * (seek_cpu_us(650) - seek_cpu_us(26)) / 624,
    "SEEK_KEY_US": lambda: (seek_cpu_us(650) - seek_cpu_us(26)) / 624,
    "CTR_ROW_US": lambda: ctr("server CPU µs, 50-row request") / 50,
    "BUILD_BYTES_PER_S": lambda: base_bytes() / of_base("build"),
    "SHIP_BYTES_PER_S": lambda: base_bytes() / of_base("ship"),
    "LOAD_BYTES_PER_S": lambda: base_bytes() / of_base("load"),
}


@pytest.mark.parametrize("name", sorted(MEASURED))
def test_figures_are_those_that_were_measured(name: str) -> None:
    measured = MEASURED[name]()
    assert measured / FACTOR < getattr(figures, name) < measured * FACTOR


def test_a_server_takes_the_memory_that_was_measured() -> None:
    for patches in RESULTS["patches"]:
        table = patches["base_keys"] * (40 + figures.TABLE_BYTES_PER_KEY) / (1 << 20)
        measured = patches["base_rss_mb"]
        assert measured / FACTOR < table + figures.SERVER_MIB < measured * FACTOR


def test_patches_take_what_a_server_may_keep_of_replaced_versions() -> None:
    assert figures.REPLACED_MIB << 20 == REPLACED_BYTES_MAX
    work = Workload(rows=10_000_000, dim=10, requests_per_s=100, shards=2)
    without, patched = plan(work), plan(replace(work, patches=True))
    table_bytes = math.ceil(without.table_bytes / 2)
    assert patched.server_memory_bytes == (
        without.server_memory_bytes + table_bytes + REPLACED_BYTES_MAX
    )


def test_a_plan_by_hand() -> None:
    work = Workload(
        rows=1_000_000_000, dim=10, requests_per_s=1000, server_memory_gib=64, server_cores=4
    )
    found = plan(work)
    # 48.5 GB a version, three of them while a pass loads, in four fifths of 64 GiB.
    assert found.table_bytes == 48_500_000_000
    assert found.shards == 3
    assert found.servers == found.shards * found.replicas == 6
    assert found.server_memory_bytes < 0.8 * 64 * GIB
    # 1,300 keys a request, a third of them for each shard: 7 + 433.3 * 0.021 = 16.1 µs.
    assert found.cores_per_shard == pytest.approx(1000 * 16.1e-6 / 0.6, rel=0.01)
    # 50,000 rows a second.
    assert found.ctr_cores == pytest.approx(50_000 * 12e-6 / 0.6)
    assert found.ctr_servers == 2


def test_the_pass_that_was_measured_takes_the_time_that_it_took() -> None:
    found = plan(Workload(rows=10_000_000, dim=10, requests_per_s=1, shards=2, replicas=1))
    passes = [each for each in RESULTS["transfer"] if each["rows"] == 10_000_000]
    measured = statistics.median(each["served_s"] for each in passes if each["what"] == "base")
    # Its files were linked, not pulled over a network.
    assert measured / FACTOR < found.total_pass_s - found.pass_s["pull"] < measured * FACTOR


@given(
    rows=st.integers(1, 10**11),
    dim=st.integers(1, 2048),
    qps=st.floats(0, 1e6),
    memory=st.floats(1, 4096),
    cores=st.integers(1, 256),
)
def test_every_plan_fits_its_machines(
    rows: int, dim: int, qps: float, memory: float, cores: int
) -> None:
    found = plan(
        Workload(
            rows=rows, dim=dim, requests_per_s=qps, server_memory_gib=memory, server_cores=cores
        )
    )
    assert found.server_memory_bytes <= memory * GIB
    assert found.builder_memory_bytes <= memory * GIB
    assert found.replicas >= 2
    # With one replica down the others still carry it.
    assert found.cores_per_shard <= (found.replicas - 1) * cores
    assert found.workers_per_server <= cores
    assert found.ctr_cores <= (found.ctr_servers - 1) * cores


def test_the_command() -> None:
    runner = CliRunner()
    base = ["capacity", "--rows=1000000000", "--dim=64", "--qps=100"]
    told = runner.invoke(app, [*base, "--shards=1", "--replicas=1"])
    assert told.exit_code == 0
    assert "note: a server of 64 GiB is too small: raise --shards" in told.output
    assert "is a shard that is down" in told.output
    as_json = json.loads(runner.invoke(app, [*base, "--quant=int8", "--json"]).output)
    # A byte an element, and the two ends of the row.
    assert as_json["table_bytes"] == 1_000_000_000 * 80.5
    assert as_json["servers"] == as_json["shards"] * as_json["replicas"]
    assert runner.invoke(app, ["capacity", "--dim=64", "--qps=1"]).exit_code == 2
