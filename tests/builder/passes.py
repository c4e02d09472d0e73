"""Passes for the builder's tests, and what stands on disk after a build."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_builder import BuildJob, BuildReport
from cube_core._native import SequenceFileWriter, Table
from cube_core.versions import Version

Keys = NDArray[np.uint64]
Values = NDArray[np.uint8]


def write_part(path: Path, keys: Keys, values: Values, dialect: str = "hadoop") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with SequenceFileWriter(str(path), dialect=dialect) as writer:
        writer.append(keys, values)


def random_part(path: Path, count: int, width: int, seed: int = 0) -> tuple[Keys, Values]:
    draw = np.random.default_rng(seed)
    keys = draw.integers(0, 2**64 - 1, count, dtype=np.uint64)
    values = draw.integers(0, 128, (count, width), dtype=np.uint8)  # finite as float32
    write_part(path, keys, values)
    return keys, values


def job(
    directory: Path, shard_num: int = 2, input_name: str = "pass", version: str = "7"
) -> BuildJob:
    return BuildJob(
        dict_name="test_dict",
        input_path=directory / input_name,
        output_path=directory / "tables",
        shard_num=shard_num,
        version=Version.parse(version),
    )


def tables_of(made: BuildJob, report: BuildReport) -> dict[int, tuple[Table, dict[int, bytes]]]:
    """The tables of a build by shard, each with its pairs."""
    tables: dict[int, tuple[Table, dict[int, bytes]]] = {}
    for shard in report.shards:
        table = Table.open(str(made.directory / shard.file))
        keys, values, _ = table.pairs(0, table.slot_count)
        rows = (value.tobytes() for value in values)
        tables[shard.shard] = (table, dict(zip(keys.tolist(), rows, strict=True)))
    return tables


def pairs_of(made: BuildJob, report: BuildReport) -> dict[int, bytes]:
    """The pairs of all tables of a build."""
    pairs: dict[int, bytes] = {}
    for _, shard_pairs in tables_of(made, report).values():
        pairs.update(shard_pairs)
    return pairs


def tree(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))
