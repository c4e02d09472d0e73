"""`make bench`: measures everything in one run and writes benchmarks/results.json."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import (
    builder,
    client,
    ctr,
    deltas,
    kernel,
    patches,
    replicas,
    server_cpu,
    switching,
    transfer,
)
from benchmarks.machine import machine
from benchmarks.peers import missing_programs
from cube_core.command_line import run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console()

_REDIS_RECORDS_MAX = 10_000_000
"""More would not fit beside everything else."""


@app.command()
def main(
    programs: Annotated[Path, typer.Option("--programs", help="Directory of load and floor.")],
    results: Annotated[
        Path, typer.Option("--results", help="Where the figures are written.")
    ] = Path("benchmarks/results.json"),
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Counted rounds a figure.")] = 5,
    large: Annotated[
        bool,
        typer.Option("--large/--nolarge", help="Also 100 M keys (20 GB on disk)."),
    ] = False,
) -> None:
    """Measures servers, kernel and client against their peers, side by side.

    Example: python -m benchmarks.run --programs=build/bench --rounds=3
    """
    # Paddle lets every library tell its requests.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    figures: dict[str, Any] = {"machine": machine()}
    for name in missing_programs():
        console.print(f"[yellow]{name} is not installed: its rows are left out[/]")
    with tempfile.TemporaryDirectory(prefix="cube-bench-") as directory:
        run_dir = Path(directory)
        figures["kernel"] = _kernel(run_dir, rounds, large)
        figures["deltas"] = _deltas(run_dir, rounds)
        figures["patches"] = _patches(run_dir)
        figures["builder"] = _builder(run_dir, rounds, large)
        figures["server_cpu"] = _server_cpu(programs, run_dir, rounds)
        figures["switching"] = _switching(programs, run_dir)
        figures["workers"] = _workers(programs, run_dir, rounds)
        figures["transfer"] = _transfer(run_dir, rounds)
        figures["client"] = _client(run_dir, rounds)
        figures["replicas"] = _replicas(run_dir, rounds)
        figures["ctr"] = _ctr(run_dir, rounds)
    results.write_text(json.dumps(figures, indent=1) + "\n")
    console.print(f"{figures['machine']}\nwritten to {results}")


def _kernel(run_dir: Path, rounds: int, large: bool) -> list[dict[str, Any]]:
    table = Table(title="seek kernel, bytes to bytes, 40-byte values, 650 keys a request, one core")
    for column in (
        "keys",
        "ns/key",
        "min",
        "small pages",
        "shared",
        "build ns/key",
        "open s",
        "memory over values, B/key",
    ):
        table.add_column(column, justify="right")
    figures = []
    for key_count in (1_000_000, 10_000_000, *((100_000_000,) if large else ())):
        figure = kernel.measure(key_count, run_dir, rounds=rounds * 20)
        figures.append(asdict(figure))
        table.add_row(
            f"{figure.key_count:,}",
            f"{figure.seek_ns_per_key:.1f}",
            f"{figure.seek_ns_per_key_min:.1f}",
            f"{figure.seek_ns_per_key_small_pages:.1f}",
            f"{figure.seek_ns_per_key_shared:.1f}",
            f"{figure.build_ns_per_key:.0f}",
            f"{figure.open_s:.2f}",
            f"{figure.memory_overhead_bytes_per_key:.2f}",
        )
    console.print(table)
    return figures


def _patches(run_dir: Path) -> list[dict[str, Any]]:
    table = Table(title="patches in a row over 1 M keys: the first quarter of them and the last")
    for column in (
        "patches",
        "rows",
        "",
        "ms a patch",
        "max",
        "seek ÷ base",
        "MB memory",
        "max",
        "MB disk",
    ):
        table.add_column(column, justify="right")
    figures = []
    for count, rows in ((1000, 1000), (200, 10_000)):
        figure = patches.measure(run_dir, patches=count, rows_per_patch=rows, base_keys=1_000_000)
        figures.append(asdict(figure))
        table.add_row(
            f"{count:,}",
            f"{rows:,}",
            "base",
            "",
            "",
            "1.00",
            f"{figure.base_rss_mb:.0f}",
            "",
            "",
        )
        for name, some in (("first", figure.first), ("last", figure.last)):
            table.add_row(
                "",
                "",
                name,
                f"{some.apply_ms_median:.0f}",
                f"{some.apply_ms_max:.0f}",
                f"{some.seek_ratio:.2f}",
                f"{some.rss_mb_median:.0f}",
                f"{some.rss_mb_max:.0f}",
                f"{some.disk_mb_max:.0f}",
            )
    console.print(table)
    return figures


def _deltas(run_dir: Path, rounds: int) -> list[dict[str, Any]]:
    table = Table(title="a delta over its base against the base alone, 650 keys a request")
    lookups = [f"÷ base, keys {kind}" for kind in deltas.KINDS]
    for column in (
        "base",
        "delta",
        *lookups,
        "lay over ms",
        "+10,000 rows s",
        "fold rows/s",
        "/CPU s",
    ):
        table.add_column(column, justify="right")
    figures = []
    for key_count in (1_000_000, 10_000_000):
        for figure in deltas.measure(key_count, run_dir, rounds=rounds):
            ratios = {lookup.kind: lookup.ratio for lookup in figure.lookups}
            figures.append({**asdict(figure), "ratios": ratios})
            table.add_row(
                f"{figure.base_keys:,}",
                f"{figure.delta_keys:,}",
                *(f"{ratios[kind]:.2f}" for kind in deltas.KINDS),
                f"{figure.lay_over_s * 1e3:.1f}",
                f"{figure.patch_merge_s:.3f}",
                f"{figure.fold_rows_per_s:,.0f}",
                f"{figure.fold_rows_per_cpu_s:,.0f}",
            )
    console.print(table)
    return figures


def _builder(run_dir: Path, rounds: int, large: bool) -> list[dict[str, Any]]:
    table = Table(title="from rows of 40 bytes to what serves them, from process start to end")
    for column in ("program", "records", "records/s", "min", "max", "records/CPU s"):
        table.add_column(column, justify="right")
    figures = builder.measure(2_000_000, run_dir, rounds=rounds, redis=True)
    for records in (10_000_000, *((100_000_000,) if large else ())):
        beside = records <= _REDIS_RECORDS_MAX
        figures += builder.measure(records, run_dir, rounds=min(rounds, 3), redis=beside)
    for figure in figures:
        table.add_row(
            figure.program,
            f"{figure.records:,}",
            f"{figure.median_records_per_s:,.0f}",
            f"{figure.min_records_per_s:,.0f}",
            f"{figure.max_records_per_s:,.0f}",
            f"{figure.records_per_cpu_s:,.0f}",
        )
    console.print(table)
    return [asdict(figure) for figure in figures]


def _transfer(run_dir: Path, rounds: int) -> list[dict[str, Any]]:
    (run_dir / "transfer").mkdir()
    deployments = transfer.measure(
        run_dir / "transfer", list(transfer.TARGETS_S), rounds=min(rounds, 3), patches=rounds
    )
    console.print(transfer.table_of(deployments))
    return [asdict(each) for each in deployments]


def _server_cpu(programs: Path, run_dir: Path, rounds: int) -> list[dict[str, Any]]:
    figures = server_cpu.measure(
        programs, run_dir, batch_sizes=(1, 26, 100, 650), rounds=rounds, keys_per_round=2_000_000
    )
    ours = {figure.keys: figure.median_us for figure in figures if figure.server == "cube-server"}
    table = Table(title="server CPU per request, 1 M keys, 40-byte values, 8 connections")
    for column in ("keys", "server", "CPU µs", "÷ cube-server", "p50 µs", "p99 µs"):
        table.add_column(column, justify="right")
    for figure in figures:
        table.add_row(
            str(figure.keys),
            figure.server,
            f"{figure.median_us:.1f}",
            f"{figure.median_us / ours[figure.keys]:.2f}",
            f"{figure.p50_us:.0f}",
            f"{figure.p99_us:.0f}",
        )
    console.print(table)
    return [asdict(figure) for figure in figures]


def _switching(programs: Path, run_dir: Path) -> list[dict[str, Any]]:
    table = Table(title="a table of 10 M keys loaded and switched to under 2,000 requests a second")
    for column in ("workers", "load s", "p99 µs rest", "load", "switch", "÷ rest", "max µs load"):
        table.add_column(column, justify="right")
    figures = []
    for workers in (1, 2):
        figure = switching.measure(programs, run_dir, large_keys=10_000_000, workers=workers)
        figures.append({**asdict(figure), "switch_ratio": figure.switch_ratio})
        table.add_row(
            str(workers),
            f"{figure.load_s:.2f}",
            f"{figure.p99_us_rest:.0f}",
            f"{figure.p99_us_load:.0f}",
            f"{figure.p99_us_switch:.0f}",
            f"{figure.switch_ratio:.2f}",
            f"{figure.max_us_load:.0f}",
        )
    console.print(table)
    return figures


def _workers(programs: Path, run_dir: Path, rounds: int) -> list[dict[str, Any]]:
    one, *more = switching.throughput(programs, run_dir, workers=(1, 2), rounds=rounds)
    table = Table(title="requests of 650 keys, by worker processes; the load shares the cores")
    for column in ("workers", "requests/s", "÷ one", "requests/CPU s", "workers x ÷ one"):
        table.add_column(column, justify="right")
    for figure in (one, *more):
        table.add_row(
            str(figure.workers),
            f"{figure.requests_per_s:,.0f}",
            f"{figure.requests_per_s / one.requests_per_s:.2f}",
            f"{figure.requests_per_cpu_s:,.0f}",
            f"{figure.workers * figure.requests_per_cpu_s / one.requests_per_cpu_s:.2f}",
        )
    console.print(table)
    return [asdict(figure) for figure in (one, *more)]


def _client(run_dir: Path, rounds: int) -> list[dict[str, Any]]:
    figures = client.measure(run_dir, rounds=rounds)
    table = Table(title="client, 1,300 keys over 2 shards, one thread")
    for column in ("client", "p50 µs", "p99 µs"):
        table.add_column(column, justify="right")
    for figure in figures:
        table.add_row(figure.client, f"{figure.p50_us:.0f}", f"{figure.p99_us:.0f}")
    console.print(table)
    return [asdict(figure) for figure in figures]


def _ctr(run_dir: Path, rounds: int) -> list[dict[str, Any]]:
    figures = ctr.measure(run_dir, rounds=rounds)
    table = Table(
        title="predictor over baidu_std, Criteo network, 2 shards, against the bare model"
    )
    for column in ("figure", "measured", "target"):
        table.add_column(column, justify="right" if column != "figure" else "left")
    for figure in figures:
        target = "" if figure.target is None else f"{figure.target:g}"
        table.add_row(figure.name, f"{figure.value:,.2f}", target)
    console.print(table)
    return [asdict(figure) for figure in figures]


def _replicas(run_dir: Path, rounds: int) -> dict[str, Any]:
    killed = replicas.measure_killed(run_dir)
    slowed = replicas.measure_slowed(run_dir, rounds=rounds * 2)
    table = Table(title="two replicas, 650 keys a seek")
    for column in (
        "one of them is",
        "seeks",
        "failed",
        "p50 µs",
        "p99 µs",
        "max µs",
        "p99 ÷ normal",
    ):
        table.add_column(column, justify="right")
    table.add_row(
        "killed under load", f"{killed.seeks:,}", str(killed.failed), "", "", f"{killed.max_us:.0f}"
    )
    normal = (f"{slowed.normal_p50_us:.0f}", f"{slowed.normal_p99_us:.0f}", "", "1.00")
    table.add_row("normal", f"{slowed.seeks:,}", "0", *normal)
    table.add_row(
        f"{replicas.DELAY_MS} ms late",
        f"{slowed.seeks:,}",
        "0",
        f"{slowed.slowed_p50_us:.0f}",
        f"{slowed.slowed_p99_us:.0f}",
        f"{slowed.slowed_max_us:.0f}",
        f"{slowed.p99_ratio:.2f}",
    )
    console.print(table)
    return {"killed": asdict(killed), "slowed": asdict(slowed)}


if __name__ == "__main__":
    run(app)
