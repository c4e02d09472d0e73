"""Parquet and Arrow IPC files as input."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cube_builder import build
from cube_builder.sources import open_source
from cube_core.errors import BuildError, CubeError
from tests.builder.passes import job, pairs_of, tree

ROWS = [[1.0, -2.0], [0.5, 3.0], [4.0, 5.0]]


def write_parquet(table: Any, path: Path) -> None:
    pyarrow.parquet.write_table(table, path, row_group_size=2)


def write_file(table: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def write_stream(table: Any, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
def test_tells_how_much_of_the_file_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "part"
    rows = pa.array(np.ones((10_000, 2)).tolist(), pa.list_(pa.float32()))
    WRITERS[kind](table_of(pa.array(range(10_000)), rows), path)
    size = path.stat().st_size
    offsets = [offset for _, offset in open_source(path).byte_batches()]
    assert len(offsets) > 4
    assert offsets == sorted(set(offsets))
    assert 0 < offsets[0] <= size // 4
    # After the batches of a stream there are a few bytes that end it.
    assert size - 16 <= offsets[-1] <= size
    *_, (_, offset) = open_source(path).batches()
    assert offset == offsets[-1]


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "parquet": write_parquet,
    "arrow": write_file,
    "stream": write_stream,
}


def table_of(keys: Any, rows: Any) -> Any:
    return pa.table({"other": pa.array(["x"] * len(keys)), "embedding": rows, "key": keys})


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("key_type", [pa.int64(), pa.uint64(), pa.int32(), pa.uint8()])
@pytest.mark.parametrize(
    "row_type", [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)]
)
def test_reads_keys_and_rows(tmp_path: Path, kind: str, key_type: Any, row_type: Any) -> None:
    keys = [7, 0, 5] if pa.types.is_unsigned_integer(key_type) else [7, -1, 5]
    path = tmp_path / "part"
    # A slice, so that offsets do not begin at 0.
    table = table_of(pa.array([9, *keys], key_type), pa.array([[8.0, 8.0], *ROWS], row_type))[1:]
    WRITERS[kind](table, path)
    source = open_source(path)
    assert source.value_bytes == 8
    found: dict[int, list[float]] = {}
    for (batch_keys, values), _ in source.batches():
        found.update(zip(batch_keys.tolist(), values.view("<f4").tolist(), strict=True))
    assert found == {key % 2**64: row for key, row in zip(keys, ROWS, strict=True)}


@pytest.mark.parametrize("kind", WRITERS)
def test_builds_of_many_rows_and_files(tmp_path: Path, kind: str) -> None:
    (tmp_path / "pass").mkdir()
    draw = np.random.default_rng(3)
    keys = draw.permutation(20_000)
    rows = draw.random((20_000, 4), dtype=np.float32)
    for number in range(2):
        half = slice(number * 10_000, (number + 1) * 10_000)
        table = table_of(pa.array(keys[half]), pa.array(list(rows[half])))
        WRITERS[kind](table, tmp_path / f"pass/part-{number}")
    made = job(tmp_path, shard_num=3)
    report = build(made)
    assert (report.record_count, report.value_bytes) == (20_000, 16)
    expected = {key: row.tobytes() for key, row in zip(keys.tolist(), rows, strict=True)}
    assert pairs_of(made, report) == expected


BAD_TABLES: dict[str, tuple[Any, str]] = {
    "no key": (pa.table({"embedding": pa.array(ROWS)}), "0 columns named 'key'"),
    "text keys": (table_of(pa.array(list("abc")), pa.array(ROWS)), "'key' is of type string"),
    "double": (
        table_of(pa.array([1, 2, 3]), pa.array(ROWS)),
        "'embedding' is of type list<.*: double>, needed is a list of float",
    ),
    "flat": (table_of(pa.array([1, 2]), pa.array([1.0, 2.0], pa.float32())), "is of type float"),
    "null key": (
        table_of(pa.array([1, None, 3]), pa.array(ROWS, pa.list_(pa.float32()))),
        "'key' has a null",
    ),
    "null row": (
        table_of(pa.array([1, 2]), pa.array([ROWS[0], None], pa.list_(pa.float32()))),
        "'embedding' has a null",
    ),
    "null inside": (
        table_of(pa.array([1, 2]), pa.array([[1, 2], [1, None]], pa.list_(pa.float32()))),
        "a null inside an 'embedding'",
    ),
    "two widths": (
        table_of(pa.array([1, 2]), pa.array([[1, 2], [1]], pa.list_(pa.float32()))),
        "key 2: a value of 4 bytes; the file's first has 8",
    ),
    "two widths far apart": (
        table_of(pa.array([1, 2, 6]), pa.array([[1, 2], [1, 2], [1]], pa.list_(pa.float32()))),
        "key 6: a value of 4 bytes; the file's first has 8",
    ),
    "empty rows": (
        table_of(pa.array([4]), pa.array([[]], pa.list_(pa.float32()))),
        "key 4: a value of 0 bytes",
    ),
    "no rows": (
        table_of(pa.array([], pa.int64()), pa.array([], pa.list_(pa.float32()))),
        "no records",
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_tables_are_refused(tmp_path: Path, kind: str, name: str) -> None:
    table, problem = BAD_TABLES[name]
    WRITERS[kind](table, tmp_path / "pass")
    with pytest.raises(BuildError, match=problem.replace("(", r"\(")) as caught:
        build(job(tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/pass: ")
    assert tree(tmp_path) == ["pass"]


@pytest.mark.parametrize("kind", WRITERS)
def test_damaged_files_are_refused_or_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pass"
    table = table_of(pa.array([1, 2, 3]), pa.array(ROWS, pa.list_(pa.float32())))
    WRITERS[kind](table, path)
    whole = path.read_bytes()
    for size in range(6, len(whole), 29):
        path.write_bytes(whole[:size])
        read_or_refuse(path)
    for position in range(6, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        read_or_refuse(path)


def read_or_refuse(path: Path) -> None:
    with contextlib.suppress(CubeError):
        for _ in open_source(path).batches():
            pass


def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(table_of(pa.array([1, 2, 3]), pa.array(ROWS)), tmp_path / "pass")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BuildError, match=r"pass: reading parquet needs pyarrow: .*\[arrow\]"):
        build(job(tmp_path))
