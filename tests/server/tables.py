"""Tables for tests: value of key k is 10 float32 `k + j/16 + 1,000,000 * base`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core._native import TableReport, write_table

DIM = 10
KEY_COUNT = 2000
DICT_NAME = "test_dict"
TABLE_NAME = f"{DICT_NAME}_part0.table"


def rows_of(keys: NDArray[np.uint64], base: int = 0) -> NDArray[np.float32]:
    """float32[n, DIM] that the table of pass `base` holds for uint64[n] keys."""
    columns = np.arange(DIM, dtype=np.float32) / 16
    offset = np.float32(1_000_000 * base)
    return np.asarray(keys.astype(np.float32)[:, None] + columns + offset, dtype=np.float32)


def make_table(
    path: Path,
    base: int,
    *,
    dict_name: str = DICT_NAME,
    version: str | None = None,
    shard: int = 0,
    shard_num: int = 1,
) -> TableReport:
    """Writes the table of pass `base`; its keys are those below KEY_COUNT of its shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = np.arange(shard, KEY_COUNT, shard_num, dtype=np.uint64)
    return write_table(
        str(path),
        keys,
        rows_of(keys, base).view(np.uint8),
        dict_name=dict_name,
        version=version or f"{base}_{base}",
        shard=shard,
        shard_num=shard_num,
    )


def place_table(data_dir: Path, base: int) -> Path:
    """Writes the table of pass `base` where a server looks for it."""
    path = data_dir / f"{base}_{base}" / TABLE_NAME
    make_table(path, base)
    return path
