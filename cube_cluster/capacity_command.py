"""`cube capacity`: what a workload takes, in a table."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

from cube_cluster.capacity import GIB, Plan, Workload, plan


class Quant(str, Enum):
    """As cube-builder's --quant."""

    NONE = "none"
    FP16 = "fp16"
    INT8 = "int8"


def capacity(
    rows: Annotated[int, typer.Option("--rows", min=1, help="Of the embedding table.")],
    dim: Annotated[int, typer.Option("--dim", min=1, max=16383, help="Floats a row.")],
    qps: Annotated[
        float, typer.Option("--qps", min=0, help="Requests a second for predictions, at the peak.")
    ],
    rows_per_request: Annotated[
        int, typer.Option("--rows_per_request", min=1, help="Instances of a request.")
    ] = 50,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Ids of an instance.")] = 26,
    quant: Annotated[Quant, typer.Option("--quant", help="How rows are stored.")] = Quant.NONE,
    patches: Annotated[
        bool, typer.Option("--patches/--nopatches", help="Patches are laid over bases.")
    ] = False,
    keep_versions: Annotated[
        int, typer.Option("--keep_versions", min=1, help="Of the shard servers.")
    ] = 2,
    server_memory_gib: Annotated[
        float, typer.Option("--server_memory_gib", min=1, help="Memory of a machine.")
    ] = 64,
    server_cores: Annotated[
        int, typer.Option("--server_cores", min=1, help="Cores of a machine.")
    ] = 8,
    link_gbit: Annotated[
        float, typer.Option("--link_gbit", min=0.01, help="Network of the daemon's machine.")
    ] = 10,
    utilization: Annotated[
        float, typer.Option("--utilization", min=0.05, max=1, help="Share of a core to be used.")
    ] = 0.6,
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, max=65535, help="As many as it takes if unset.")
    ] = None,
    replicas: Annotated[
        int | None,
        typer.Option("--replicas", min=1, max=1024, help="As many as it takes if unset."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Tells how many shards, replicas, cores and bytes a workload takes, from figures that were
    measured on one machine: docs/operating/capacity.md. Asks and changes nothing.

    Example: cube capacity --rows=1000000000 --dim=16 --qps=2000 --server_memory_gib=64
    """
    work = Workload(
        rows=rows,
        dim=dim,
        requests_per_s=qps,
        quant=quant.value,
        rows_per_request=rows_per_request,
        slots=slots,
        server_memory_gib=server_memory_gib,
        server_cores=server_cores,
        link_gbit=link_gbit,
        keep_versions=keep_versions,
        patches=patches,
        utilization=utilization,
        shards=shards,
        replicas=replicas,
    )
    found = plan(work)
    if as_json:
        print(json.dumps({**asdict(found), "servers": found.servers}, indent=1))
        return
    for name, value in lines(work, found):
        print(f"{name:28}{value}")
    for warning in warnings(work, found):
        print(f"note: {warning}")


def lines(work: Workload, found: Plan) -> list[tuple[str, str]]:
    """The plan in words, a line each."""
    steps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in found.pass_s.items())
    return [
        ("table", f"{_gib(found.table_bytes)} a version, {work.stored_bytes} bytes a value"),
        (
            "shard servers",
            f"{found.shards} shards × {found.replicas} replicas = {found.servers}, "
            f"{found.workers_per_server} workers each",
        ),
        (
            "  memory of each",
            f"{_gib(found.server_memory_bytes)}: "
            f"{found.tables_in_memory} tables while a pass loads",
        ),
        ("  disk of each", _gib(found.server_disk_bytes)),
        ("  cores of a shard", f"{found.cores_per_shard:.2f} over all its replicas"),
        (
            "CTR servers",
            f"{found.ctr_servers} with {found.ctr_workers_per_server} workers each, "
            f"{found.ctr_cores:.1f} cores in all",
        ),
        ("  memory of each", f"{_gib(found.ctr_memory_bytes)}, and the models'"),
        ("transfer daemon", f"disk {_gib(found.transfer_disk_bytes)}"),
        ("  memory of a build", _gib(found.builder_memory_bytes)),
        ("time of a pass", f"{found.total_pass_s:.1f} s: {steps}"),
    ]


def warnings(work: Workload, found: Plan) -> list[str]:
    """What does not fit, where the numbers of shards or replicas were given."""
    notes = []
    memory = work.server_memory_gib * GIB
    if found.server_memory_bytes > memory:
        notes.append(f"a server of {work.server_memory_gib:g} GiB is too small: raise --shards")
    if found.builder_memory_bytes > memory:
        notes.append(
            f"a build takes more than {work.server_memory_gib:g} GiB: raise --shards,"
            " or build on Spark"
        )
    if found.replicas == 1:
        notes.append("with one replica a server that is down is a shard that is down")
    if found.workers_per_server > work.server_cores:
        notes.append(
            f"{work.server_cores} cores are too few while a replica is down: raise --replicas"
        )
    return notes


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
