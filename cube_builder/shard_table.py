"""The table of one shard, whichever engine has its pairs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.changes import finally_deleted, without_mark
from cube_builder.checks import require_unique
from cube_builder.job import BuildJob, ShardReport
from cube_core._native import TableReport, write_table


def write_shard_table(
    job: BuildJob, shard: int, keys: NDArray[np.uint64], rows: NDArray[np.uint8], path: Path
) -> ShardReport:
    """Writes uint64[n] keys of the shard and uint8[n, row] rows, as the job's `quant` has them; in
    a delta with a byte more, as `with_mark` adds it.

    Raises:
        BuildError: a key stands twice and the job refuses that.
        OSError: the disk.
    """
    if job.delta:
        rows, deleted = without_mark(rows)
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
    rows: NDArray[np.uint8],
    path: Path,
    deletions: NDArray[np.uint64] | None = None,
) -> TableReport:
    return write_table(
        str(path),
        keys,
        rows,
        dict_name=job.dict_name,
        version=str(job.version),
        shard=shard,
        shard_num=job.shard_num,
        value_kind="bytes" if job.quant == "none" else job.quant,
        base_version=str(job.base_version or ""),
        deletions=deletions,
    )
