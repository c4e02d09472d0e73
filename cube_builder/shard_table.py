"""The table of one shard, whichever engine has its pairs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ByteValues, Values
from cube_builder.changes import finally_deleted, without_mark
from cube_builder.checks import require_unique
from cube_builder.job import BuildJob, ShardReport
from cube_core._native import TableReport, write_table


def write_shard_table(
    job: BuildJob, shard: int, keys: NDArray[np.uint64], rows: Values, path: Path
) -> ShardReport:
    """Writes uint64[n] keys of the shard and uint8[n, row] rows, as the job's `quant` has them; in
    a delta with a byte more, as `with_mark` adds it. Or values with a width each, of which a delta
    has empty ones for the keys that it deletes.

    Raises:
        BuildError: a key stands twice and the job refuses that.
        OSError: the disk.
    """
    if job.delta:
        rows, deleted = _without_deleted(rows)
        deletions = finally_deleted(keys, deleted)
        written = _write(job, shard, keys[~deleted], rows, path, deletions)
    else:
        written = _write(job, shard, keys, rows, path)
    duplicate_count = len(keys) - written.key_count
    if job.on_duplicate == "error":
        require_unique(path.name, keys, duplicate_count)
    return ShardReport(
        shard=shard,
        file=path.name,
        key_count=written.key_count,
        duplicate_count=duplicate_count,
        file_bytes=written.file_bytes,
        crc32c=written.crc32c,
        deletion_count=written.deletion_count,
    )


def _write(
    job: BuildJob,
    shard: int,
    keys: NDArray[np.uint64],
    rows: Values,
    path: Path,
    deletions: NDArray[np.uint64] | None = None,
) -> TableReport:
    return write_table(
        str(path),
        keys,
        rows.values if isinstance(rows, ByteValues) else rows,
        dict_name=job.dict_name,
        version=str(job.version),
        shard=shard,
        shard_num=job.shard_num,
        value_kind=_value_kind(job),
        offsets=rows.offsets if isinstance(rows, ByteValues) else None,
        base_version=str(job.base_version or ""),
        deletions=deletions,
    )


def _without_deleted(rows: Values) -> tuple[Values, NDArray[np.bool_]]:
    """Of what a delta holds the values, and bool[n]: which keys have none."""
    if not isinstance(rows, ByteValues):
        return without_mark(rows)
    deleted: NDArray[np.bool_] = rows.widths == 0
    return rows.take(np.flatnonzero(~deleted)), deleted


def _value_kind(job: BuildJob) -> str:
    if job.is_variable:
        return "variable"
    return "bytes" if job.quant == "none" else job.quant
