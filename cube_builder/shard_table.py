"""The table of one shard, whichever engine has its pairs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder.checks import require_unique
from cube_builder.job import BuildJob, ShardReport
from cube_core._native import write_table
from cube_core.errors import BuildError


def write_shard_table(
    job: BuildJob, shard: int, keys: NDArray[np.uint64], rows: NDArray[np.uint8], path: Path
) -> ShardReport:
    """Writes uint64[n] keys of the shard and uint8[n, row] rows, as the job's `quant` has them.

    Raises:
        BuildError: a key stands twice and the job refuses that.
        OSError: the disk.
    """
    written = write_table(
        str(path),
        keys,
        rows,
        dict_name=job.dict_name,
        version=str(job.version),
        shard=shard,
        shard_num=job.shard_num,
        value_kind="bytes" if job.quant == "none" else job.quant,
    )
    if written.key_count + written.duplicate_count != len(keys):
        raise BuildError(
            f"{path.name}: the table has {written.key_count} keys and {written.duplicate_count} "
            f"duplicates of {len(keys)} records"
        )
    if job.on_duplicate == "error":
        require_unique(path.name, keys, written.duplicate_count)
    return ShardReport(
        shard=shard,
        file=path.name,
        key_count=written.key_count,
        duplicate_count=written.duplicate_count,
        file_bytes=written.file_bytes,
        crc32c=written.crc32c,
    )
