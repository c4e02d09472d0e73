"""Embeddings on disk, as LOCAL reads them."""

from __future__ import annotations

from pathlib import Path

import lmdb
import numpy as np
from numpy.typing import NDArray

from cube_core._native import write_table


def write_shard_tables(
    root: Path,
    version: str,
    keys: NDArray[np.uint64],
    rows: NDArray[np.float32],
    *,
    dict_name: str,
    shard_num: int = 2,
) -> None:
    """Writes <root>/<version>/<dict_name>_part<shard>.table, as cube-builder does."""
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shard_num):
        mine = keys % shard_num == shard
        write_table(
            str(folder / f"{dict_name}_part{shard}.table"),
            keys[mine],
            np.ascontiguousarray(rows[mine]).view(np.uint8),
            dict_name=dict_name,
            version=version,
            shard=shard,
            shard_num=shard_num,
        )


def write_lmdb(
    root: Path,
    version: str,
    keys: NDArray[np.uint64],
    rows: NDArray[np.float32],
    *,
    dict_name: str,
) -> None:
    """Writes <root>/<version>/<dict_name>.lmdb."""
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    with (
        lmdb.open(str(folder / f"{dict_name}.lmdb"), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        for key, row in zip(keys.astype("<u8"), rows.astype("<f4"), strict=True):
            transaction.put(key.tobytes(), row.tobytes())
