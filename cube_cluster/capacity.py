"""How much of everything a deployment takes, from what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from cube_cluster import figures

GIB = 1 << 30
_MIB = 1 << 20
# A record of a SequenceFile beside its value, and what the builder holds of one besides it.
_RECORD_BYTES = 24
_BUILDER_BYTES_PER_RECORD = 32
_BUILDER_BYTES = 128 << 20
_MEMORY_SHARE = 0.8


@dataclass(frozen=True)
class Workload:
    """What is asked of a deployment.

    Attributes:
        rows: of the embedding table.
        dim: floats a row.
        quant: how rows are stored.
        requests_per_s: to the predictors, at the busiest time.
        rows_per_request, slots: a request asks for the vectors of slots ids of each row.
        server_memory_gib, server_cores: of one machine.
        link_gbit: network of the machine of the transfer daemon.
        keep_versions: of the shard servers.
        patches: whether patches are laid over bases.
        utilization: share of a core that may be busy.
        shards, replicas: None for as many as it takes.
    """

    rows: int
    dim: int
    requests_per_s: float
    quant: Literal["none", "fp16", "int8"] = "none"
    rows_per_request: int = 50
    slots: int = 26
    server_memory_gib: float = 64
    server_cores: int = 8
    link_gbit: float = 10
    keep_versions: int = 2
    patches: bool = False
    utilization: float = 0.6
    shards: int | None = None
    replicas: int | None = None

    @property
    def stored_bytes(self) -> int:
        """Of a row's value in a table."""
        return {"none": 4 * self.dim, "fp16": 2 * self.dim, "int8": self.dim + 8}[self.quant]

    @property
    def keys_per_request(self) -> int:
        return self.rows_per_request * self.slots


@dataclass(frozen=True)
class Plan:
    """What it takes. Bytes are of one machine of the kind, but for `table_bytes`: all shards of one
    version; cores are those that are busy, divided by the utilization."""

    shards: int
    replicas: int
    tables_in_memory: int
    table_bytes: int
    server_memory_bytes: int
    server_disk_bytes: int
    cores_per_shard: float
    workers_per_server: int
    ctr_cores: float
    ctr_servers: int
    ctr_workers_per_server: int
    ctr_memory_bytes: int
    transfer_disk_bytes: int
    builder_memory_bytes: int
    pass_s: dict[str, float]

    @property
    def servers(self) -> int:
        return self.shards * self.replicas

    @property
    def total_pass_s(self) -> float:
        return sum(self.pass_s.values())


def plan(work: Workload) -> Plan:
    """What a workload takes, with one server of each shard and one predictor down."""
    table_bytes = math.ceil(work.rows * (work.stored_bytes + figures.TABLE_BYTES_PER_KEY))
    # Those that are kept, and the next one while it is loaded; a fold writes one more.
    tables = work.keep_versions + 1 + work.patches
    shards = work.shards or _shards(work, table_bytes * tables)
    cores = _seek_cores(work, shards)
    carrying = max(1, math.ceil(cores / work.server_cores))
    replicas = work.replicas or carrying + 1
    ctr_cores = work.requests_per_s * work.rows_per_request * figures.CTR_ROW_US / 1e6
    ctr_cores /= work.utilization
    ctr_carrying = max(1, math.ceil(ctr_cores / work.server_cores))
    ctr_workers = max(1, math.ceil(ctr_cores / ctr_carrying))
    shard_bytes = math.ceil(table_bytes / shards)
    return Plan(
        shards=shards,
        replicas=replicas,
        tables_in_memory=tables,
        table_bytes=table_bytes,
        server_memory_bytes=shard_bytes * tables + _server_bytes(work),
        server_disk_bytes=shard_bytes * tables,
        cores_per_shard=cores,
        workers_per_server=max(1, math.ceil(cores / max(1, replicas - 1))),
        ctr_cores=ctr_cores,
        ctr_servers=ctr_carrying + 1,
        ctr_workers_per_server=ctr_workers,
        ctr_memory_bytes=ctr_workers * figures.CTR_WORKER_MIB * _MIB,
        transfer_disk_bytes=table_bytes * (work.keep_versions + 1) + 2 * _pass_bytes(work),
        builder_memory_bytes=_builder_bytes(work, shards),
        pass_s=_pass_s(work, table_bytes, shards, replicas),
    )


def _server_bytes(work: Workload) -> int:
    """Of a server besides whole tables."""
    return (figures.SERVER_MIB + work.patches * figures.REPLACED_MIB) * _MIB


def _pass_bytes(work: Workload) -> int:
    """Of the SequenceFiles, which are not quantized."""
    return work.rows * (4 * work.dim + _RECORD_BYTES)


def _builder_bytes(work: Workload, shards: int) -> int:
    per_record = 4 * work.dim + _BUILDER_BYTES_PER_RECORD
    return math.ceil(work.rows / shards * per_record) + _BUILDER_BYTES


def _shards(work: Workload, memory_bytes: int) -> int:
    """So many that a shard fits a server, and the builder."""
    room = work.server_memory_gib * GIB * _MEMORY_SHARE
    of_servers = memory_bytes / max(1.0, room - _server_bytes(work))
    of_builder = (_builder_bytes(work, 1) - _BUILDER_BYTES) / max(1.0, room - _BUILDER_BYTES)
    return max(1, math.ceil(of_servers), math.ceil(of_builder))


def _seek_cores(work: Workload, shards: int) -> float:
    """Of all servers of a shard together; a request asks each shard for its part of the keys."""
    wider = max(1.0, 4 * work.dim / figures.SEEK_VALUE_BYTES)
    keys = work.keys_per_request / shards
    request_us = figures.SEEK_REQUEST_US + keys * figures.SEEK_KEY_US * wider
    return work.requests_per_s * request_us / 1e6 / work.utilization


def _pass_s(work: Workload, table_bytes: int, shards: int, replicas: int) -> dict[str, float]:
    link = work.link_gbit * 1e9 / 8
    return {
        "pull": _pass_bytes(work) / link,
        "build": table_bytes / figures.BUILD_BYTES_PER_S,
        "ship": table_bytes * replicas / min(link, figures.SHIP_BYTES_PER_S),
        "load": table_bytes / shards / figures.LOAD_BYTES_PER_S,
        "notice, switch, publish": figures.PASS_FIXED_S,
    }
