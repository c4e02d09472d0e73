"""Builds of passes whose values have a width each, from every kind of input and back to text."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_builder import BuildJob, build
from cube_builder.batches import ByteValues
from cube_builder.main import app
from cube_builder.pairs import read_pairs
from cube_core import command_line
from cube_core._native import SequenceFileWriter, Table
from cube_core.errors import BuildError, CubeError
from cube_core.versions import Version
from tests.builder.passes import job, random_part, tree
from tests.builder.test_original_source import write_original

Pairs = list[tuple[int, bytes]]


def some_pairs(count: int, seed: int = 0) -> Pairs:
    """Float32 lists of 1 to 30 elements, and bytes of odd widths; some keys stand twice."""
    draw = np.random.default_rng(seed)
    pairs = []
    for key in draw.integers(0, count, count).tolist():
        dim = int(draw.integers(1, 31))
        odd = bytes(draw.integers(0, 256, 4 * dim - 1, dtype=np.uint8))
        pairs.append((key * 2**40 + 1, odd if key % 3 else draw.random(dim, "<f4").tobytes()))
    return [*pairs, (5, bytes(65_535))]


def write_sequence_file(path: Path, pairs: Pairs, dialect: str = "hadoop") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = ByteValues.of_widths(
        np.array([len(value) for _, value in pairs], np.int64),
        np.frombuffer(b"".join(value for _, value in pairs), np.uint8),
    )
    with SequenceFileWriter(str(path), dialect=dialect) as writer:
        keys = np.array([key for key, _ in pairs], np.uint64)
        writer.append_bytes(keys, values.offsets, values.values)


def write_parquet(path: Path, pairs: Pairs) -> None:
    """Binary values, after a row that is sliced away so that offsets do not begin at 0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = pa.array([0, *(key for key, _ in pairs)], pa.uint64())
    values = pa.array([b"xyz", *(value for _, value in pairs)], pa.binary())
    pyarrow.parquet.write_table(pa.table({"key": keys, "embedding": values})[1:], path)


def write_stream(path: Path, pairs: Pairs) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = pa.array([0, *(key for key, _ in pairs)], pa.uint64())
    values = pa.array([b"xyz", *(value for _, value in pairs)], pa.large_binary())
    table = pa.table({"key": keys, "embedding": values})[1:]
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=100)


WRITERS: dict[str, Callable[[Path, Pairs], None]] = {
    "sequence file": write_sequence_file,
    "parquet": write_parquet,
    "arrow stream": write_stream,
    "original": lambda path, pairs: write_original(path, pairs),
}


def variable_job(directory: Path, **changes: Any) -> BuildJob:
    fields = {"value_width": "variable", "on_nonfinite": "keep", **changes}
    return replace(job(directory), **fields)


def pairs_in(made: BuildJob, shard_num: int = 2) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    for shard in range(shard_num):
        table = Table.open(str(made.directory / made.table_name(shard)))
        assert table.value_kind == "variable"
        keys, offsets, values, _ = table.pairs_bytes(0, table.slot_count, 1 << 30)
        taken = ByteValues(offsets, values)
        assert all(key % shard_num == shard for key in keys.tolist())
        found.update((key, taken.value(i)) for i, key in enumerate(keys.tolist()))
    return found


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        command_line.run(app, arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


@pytest.mark.parametrize("kind", WRITERS)
def test_every_input_gives_the_same_tables(tmp_path: Path, kind: str) -> None:
    pairs = some_pairs(3000)
    write_sequence_file(tmp_path / "first" / "part-0", list(dict(pairs).items()))
    build(first := variable_job(tmp_path, input_path=tmp_path / "first"))
    WRITERS[kind](tmp_path / "pass" / "part-0", pairs)
    again = variable_job(tmp_path, output_path=tmp_path / "again")
    report = build(again)
    assert (report.record_count, report.value_bytes, report.dim) == (len(pairs), 0, None)
    assert report.value_width == "variable"
    assert pairs_in(again) == dict(pairs)
    for shard in range(2):
        name = first.table_name(shard)
        assert (first.directory / name).read_bytes() == (again.directory / name).read_bytes()


def test_lists_of_various_lengths(tmp_path: Path) -> None:
    rows = [[1.0], [0.5, -3.0, 4.0], [2.0, 2.5]]
    table = pa.table({"key": [4, 5, 6], "embedding": pa.array(rows, pa.list_(pa.float32()))})
    (tmp_path / "pass").mkdir()
    pyarrow.parquet.write_table(table, tmp_path / "pass" / "part-0")
    build(made := variable_job(tmp_path, on_nonfinite="error"))
    expected = {
        key: np.array(row, "<f4").tobytes() for key, row in zip([4, 5, 6], rows, strict=True)
    }
    assert pairs_in(made) == expected


@pytest.mark.parametrize("kind", WRITERS)
def test_other_widths_are_refused_without_the_flag(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](tmp_path / "pass" / "part-0", [(1, b"abcd"), (2, b"abcde")])
    with pytest.raises(CubeError, match=r"key 2: a value of 5 bytes.*--value_width=variable"):
        build(job(tmp_path))
    random_part(tmp_path / "pass2" / "part-0", 3, 8)
    random_part(tmp_path / "pass2" / "part-1", 3, 12)
    with pytest.raises(BuildError, match=r"values of 12 bytes.*--value_width=variable"):
        build(job(tmp_path, input_name="pass2"))
    assert not (tmp_path / "tables").exists()


def test_what_a_variable_build_refuses(tmp_path: Path) -> None:
    path = tmp_path / "pass" / "part-0"
    nan = np.array([0.5, np.nan], "<f4").tobytes()
    write_sequence_file(path, [(1, b"abc"), (8, b"abcd"), (9, nan)])
    with pytest.raises(BuildError, match="key 9: element 1 is nan"):
        build(variable_job(tmp_path, on_nonfinite="error"))
    with pytest.raises(BuildError, match="quant int8: rows have one width"):
        variable_job(tmp_path, quant="int8")
    with pytest.raises(BuildError, match="value_width 'wide': must be fixed or variable"):
        replace(job(tmp_path), value_width="wide")  # type: ignore[arg-type]
    write_sequence_file(path, [(key, bytes(60_000)) for key in range(0, 2000, 2)])
    with pytest.raises(BuildError, match=r"shard 0 has .* over memory_mb=160"):
        build(variable_job(tmp_path, memory_mb=160))
    write_sequence_file(path, [(1, b"abc"), (1, b"de")])
    with pytest.raises(BuildError, match="key 1 stands in the input 2 times"):
        build(variable_job(tmp_path, on_duplicate="error"))
    empty = pa.table({"key": [3], "embedding": pa.array([b""], pa.binary())})
    pyarrow.parquet.write_table(empty, path)
    with pytest.raises(BuildError, match="key 3: a value of 0 bytes; supported are 1 to 65535"):
        build(variable_job(tmp_path))
    assert "tables" not in tree(tmp_path)


def test_no_record_in_any_file(tmp_path: Path) -> None:
    write_sequence_file(tmp_path / "pass" / "part-0", [])
    with pytest.raises(BuildError, match="no records in it or in any of the 1 input files"):
        build(variable_job(tmp_path))


finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
values = st.one_of(
    st.lists(finite, min_size=1, max_size=5).map(lambda row: np.array(row, "<f4").tobytes()),
    st.binary(min_size=1, max_size=9),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pairs=st.dictionaries(st.integers(0, 2**64 - 1), values, min_size=1, max_size=20))
def test_cat_and_text_are_each_others_reverse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], pairs: dict[int, bytes]
) -> None:
    write_sequence_file(tmp_path / "part", list(pairs.items()))
    capsys.readouterr()
    assert run("cat", str(tmp_path / "part"), "--hex") == 0
    (tmp_path / "pairs.txt").write_text(capsys.readouterr().out)
    flags = [f"--input_path={tmp_path / 'pairs.txt'}", f"--output_path={tmp_path / 'again'}"]
    assert run("text", *flags, "--value_width=variable") == 0
    found: dict[int, bytes] = {}
    for keys, batch in read_pairs(tmp_path / "again"):
        taken = batch if isinstance(batch, ByteValues) else ByteValues.of_rows(batch)
        found.update((key, taken.value(i)) for i, key in enumerate(keys.tolist()))
    assert found == pairs


def test_text_of_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "pairs.txt"
    source.write_text("1:0.25\n2:0.5 1.0 -2.0\n3:0x0102ff\n")
    flags = [f"--input_path={source}", f"--output_path={tmp_path / 'pass'}"]
    assert run("text", *flags) == 2
    assert "pairs.txt:2: 3 values, the first line has 1 values" in (told := capsys.readouterr().err)
    assert "--value_width=variable" in told
    assert run("text", *flags, "--value_width=variable") == 0
    build(made := variable_job(tmp_path, shard_num=1, on_nonfinite="error"))
    capsys.readouterr()
    assert run("cat", str(made.directory)) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == source.read_text().splitlines()
    source.write_text("1:0x01zz\n")
    assert run("text", *flags) == 2
    assert "'0x01zz' is not hexadecimal" in capsys.readouterr().err


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence_file(tmp_path / "pass" / "part-0", [(1, b"abc"), (2, b"abcde")])
    flags = [
        "--dict_name=test_dict",
        "--cur_version=7",
        f"--input_path={tmp_path / 'pass'}",
        f"--output_path={tmp_path / 'tables'}",
        "--shard_num=1",
    ]
    assert run(*flags, "--value_width=other") == 2
    assert "value_width 'other': must be fixed or variable" in capsys.readouterr().err
    assert run(*flags, "--value_width=variable") == 0
    assert "2 records of various bytes" in capsys.readouterr().out
    made = json.loads((tmp_path / "tables" / "7_7" / "build.json").read_bytes())
    assert (made["value_width"], made["value_bytes"], made["dim"]) == ("variable", 0, None)
    assert run("verify", str(tmp_path / "tables" / "7_7")) == 0
    assert "2 keys of up to 5 bytes" in capsys.readouterr().out


def test_diff_compares_values_of_any_width(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = {key: bytes([key] * (1 + key % 7)) for key in range(1, 60)}
    new = {**old, 7: b"x", 14: bytes(len(old[14])), 100: b"new"}
    del new[3]
    for version, pairs in (("1", old), ("2", new)):
        write_sequence_file(tmp_path / f"pass-{version}", list(pairs.items()))
        made = job(tmp_path, 2, f"pass-{version}", version)
        build(replace(made, value_width="variable", on_nonfinite="keep"))
    assert run("diff", str(tmp_path / "tables" / "1_1"), str(tmp_path / "tables" / "2_2")) == 0
    *lines, summary = capsys.readouterr().out.splitlines()
    assert sorted(lines) == ["added 100", "changed 14", "changed 7", "removed 3"]
    assert summary == "1 added, 1 removed, 2 changed, 56 equal"


def test_a_delta_over_a_base_of_variable_width(tmp_path: Path) -> None:
    base = {key: bytes([key] * (1 + key % 9)) for key in range(200)}
    write_sequence_file(tmp_path / "pass" / "part-0", list(base.items()))
    build(whole := variable_job(tmp_path))
    changes = [
        (3, b"longer than before"),
        (4, b""),
        (5, b""),
        (5, b"back"),
        (999, b"new"),
        (7, b""),
    ]
    write_sequence_file(tmp_path / "patch" / "part-0", changes)
    patch = variable_job(
        tmp_path, input_path=tmp_path / "patch", version=Version.parse("7_8"), delta=True
    )
    report = build(patch)
    assert (report.record_count, report.base_version) == (6, "7_7")
    assert sum(shard.deletion_count for shard in report.shards) == 2
    expected = {**base, **dict(changes)}
    for shard in range(2):
        name = whole.table_name(shard)
        over = Table.open(str(whole.directory / name)).with_delta(
            Table.open(str(patch.directory / name))
        )
        keys = np.arange(shard, 1001, 2, dtype=np.uint64)
        offsets, values, status = over.get_bytes(keys)
        taken = ByteValues(offsets, values)
        for i, key in enumerate(keys.tolist()):
            assert taken.value(i) == expected.get(key, b"")
            assert status[i] == (0 if expected.get(key) else -1)


def test_a_delta_of_fixed_width_needs_a_base_of_fixed_width(tmp_path: Path) -> None:
    random_part(tmp_path / "pass" / "part-0", 10, 8)
    build(variable_job(tmp_path))
    patch = replace(job(tmp_path), version=Version.parse("7_8"), delta=True)
    with pytest.raises(BuildError, match="value_width is fixed, but that of the base 7_7 is var"):
        build(patch)
