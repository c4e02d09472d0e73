"""Patches: what a build with --job_mode=delta makes of values and deletions."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cube_builder import BuildJob, BuildReport, build
from cube_builder.main import app
from cube_builder.quantize import Quant
from cube_core import command_line
from cube_core._native import STATUS_DELETED, STATUS_FOUND, STATUS_MISSING, Table, merge_tables
from cube_core.errors import BuildError, SequenceFileError
from tests.builder import sequence_bytes as raw
from tests.builder.passes import job, tree

Change = tuple[int, bytes]
"""A key and its value; an empty one deletes it."""

Write = Callable[[Path, Sequence[Change]], None]


def value_of(number: float) -> bytes:
    return struct.pack("<2f", number, number)


def write_sequence(path: Path, changes: Sequence[Change]) -> None:
    path.write_bytes(raw.hadoop_file(changes))


def write_paddle(path: Path, changes: Sequence[Change]) -> None:
    path.write_bytes(raw.paddle_file(changes))


def write_parquet(path: Path, changes: Sequence[Change]) -> None:
    pyarrow.parquet.write_table(arrow_table(changes), path, row_group_size=3)


def write_fixed_size_lists(path: Path, changes: Sequence[Change]) -> None:
    table = arrow_table(changes)
    fixed = table.column("embedding").cast(pa.list_(pa.float32(), 2))
    pyarrow.parquet.write_table(table.set_column(1, "embedding", fixed), path)


def write_arrow(path: Path, changes: Sequence[Change]) -> None:
    table = arrow_table(changes)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def arrow_table(changes: Sequence[Change]) -> pa.Table:
    values = [np.frombuffer(value, "<f4").tolist() if value else None for _, value in changes]
    keys = pa.array([key for key, _ in changes], pa.uint64())
    return pa.table({"key": keys, "embedding": pa.array(values, pa.list_(pa.float32()))})


def write_text(path: Path, changes: Sequence[Change]) -> None:
    source = path.with_name("_lines")
    lines = [
        f"{key}:{' '.join(map(str, np.frombuffer(value, '<f4').tolist()))}"
        for key, value in changes
    ]
    source.write_text("\n".join(lines))
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, ["text", f"--input_path={source}", f"--output_path={path}"])


def patch_job(directory: Path, version: str = "7_8") -> BuildJob:
    return dataclasses.replace(job(directory, version=version), delta=True)


def content_of(made: BuildJob, report: BuildReport) -> dict[int, bytes]:
    """What the tables of a patch say of each key."""
    content: dict[int, bytes] = {}
    for shard in report.shards:
        table = Table.open(str(made.directory / shard.file))
        assert (table.kind, table.version, table.base_version) == ("delta", "7_8", "7_7")
        assert (table.key_count, table.deletion_count) == (shard.key_count, shard.deletion_count)
        keys, values, _ = table.pairs(0, table.slot_count)
        content |= zip(keys.tolist(), (value.tobytes() for value in values), strict=True)
        deleted, _ = table.deletions(0, table.slot_count)
        assert len(deleted) == table.deletion_count
        content |= dict.fromkeys(deleted.tolist(), b"")
    return content


CHANGES: list[Change] = [
    (12, b""),
    (11, b""),
    (4, value_of(1)),
    (9, value_of(2)),
    (5, value_of(3)),
    (9, b""),
    (6, b""),
    (6, value_of(4)),
    (2**64 - 1, b""),
    (4, value_of(5)),
]
EXPECTED: dict[int, bytes] = {
    4: value_of(5),
    5: value_of(3),
    6: value_of(4),
    9: b"",
    11: b"",
    12: b"",
    2**64 - 1: b"",
}
FORMATS: list[Write] = [
    write_sequence,
    write_paddle,
    write_parquet,
    write_fixed_size_lists,
    write_arrow,
    write_text,
]


@pytest.mark.parametrize("write", FORMATS, ids=lambda write: write.__name__)
def test_the_last_change_of_a_key_counts(tmp_path: Path, write: Write) -> None:
    (tmp_path / "pass").mkdir()
    write(tmp_path / "pass/part-0", CHANGES[:6])
    write(tmp_path / "pass/part-1", CHANGES[6:])
    made = patch_job(tmp_path)
    report = build(made)
    assert content_of(made, report) == EXPECTED
    assert BuildReport.read(made.directory) == report
    assert (report.base_version, report.value_bytes, report.record_count) == ("7_7", 8, 10)
    assert sum(shard.deletion_count for shard in report.shards) == 4
    assert sum(shard.duplicate_count for shard in report.shards) == 3


@pytest.mark.parametrize("write", [write_sequence, write_parquet, write_arrow])
def test_a_base_refuses_what_deletes(tmp_path: Path, write: Write) -> None:
    (tmp_path / "pass").mkdir()
    write(tmp_path / "pass/part-0", CHANGES[2:])
    with pytest.raises((BuildError, SequenceFileError), match=r"of a delta"):
        build(job(tmp_path))
    assert tree(tmp_path) == ["pass", "pass/part-0"]


@pytest.mark.parametrize("write", [write_sequence, write_parquet])
def test_a_patch_may_only_delete(tmp_path: Path, write: Write) -> None:
    (tmp_path / "pass").mkdir()
    write(tmp_path / "pass/part-0", [(4, b""), (5, b""), (4, b"")])
    made = patch_job(tmp_path)
    assert content_of(made, build(made)) == {4: b"", 5: b""}


def test_a_patch_may_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "pass").mkdir()
    write_sequence(tmp_path / "pass/part-0", [])
    made = patch_job(tmp_path)
    assert content_of(made, build(made)) == {}


def test_merged_with_its_base_it_is_the_pass_with_the_changes(tmp_path: Path) -> None:
    (tmp_path / "pass").mkdir()
    write_sequence(tmp_path / "pass/part-0", [(key, value_of(key)) for key in range(20)])
    base = job(tmp_path)
    base_report = build(base)
    write_sequence(tmp_path / "pass/part-0", CHANGES)
    patch = patch_job(tmp_path)
    build(patch)
    for shard in base_report.shards:
        parts = [Table.open(str(made.directory / shard.file)) for made in (base, patch)]
        merge_tables(str(tmp_path / "merged"), parts, version="7_8")
        merged = Table.open(str(tmp_path / "merged"))
        keys = np.arange(shard.shard, 24, 2, dtype=np.uint64)
        values, status = merged.get(keys)
        for key, value, found in zip(keys.tolist(), values, status.tolist(), strict=True):
            expected = EXPECTED.get(key, value_of(key) if key < 20 else b"")
            assert (value.tobytes() if found == STATUS_FOUND else b"") == expected
            assert found in (STATUS_FOUND, STATUS_MISSING)


@pytest.mark.parametrize("quant", ["fp16", "int8"])
def test_values_of_a_patch_are_quantized(tmp_path: Path, quant: Quant) -> None:
    (tmp_path / "pass").mkdir()
    write_sequence(tmp_path / "pass/part-0", [*CHANGES, (20, struct.pack("<2f", 0.1, 1))])
    made = dataclasses.replace(patch_job(tmp_path), quant=quant)
    report = build(made)
    assert content_of(made, report).keys() == {*EXPECTED, 20}
    # Two elements are the ends of an int8 row, which are exact.
    assert (0 < report.quant_mean_error < report.quant_max_error < 0.01) == (quant == "fp16")
    table = Table.open(str(made.directory / report.shards[0].file))
    assert table.value_kind == quant
    values, status = table.get(np.array([4, 12], np.uint64))
    assert values[0].tobytes() == value_of(5)
    assert status.tolist() == [STATUS_FOUND, STATUS_DELETED]


class TestBesideItsBase:
    """Where the base was built to the same place, the patch is checked against it."""

    @pytest.fixture(autouse=True)
    def _build_base(self, tmp_path: Path) -> None:
        (tmp_path / "pass").mkdir()
        write_sequence(tmp_path / "pass/part-0", [(1, value_of(1))])
        build(job(tmp_path))

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"shard_num": 3}, "shard_num is 3, but that of the base 7_7 is 2"),
            ({"dict_name": "other"}, "dict_name is other, but that of the base 7_7 is test_dict"),
            ({"quant": "fp16"}, "quant is fp16, but that of the base 7_7 is none"),
        ],
    )
    def test_it_must_fit(self, tmp_path: Path, changes: dict[str, object], problem: str) -> None:
        before = tree(tmp_path)
        with pytest.raises(BuildError, match=problem):
            build(dataclasses.replace(patch_job(tmp_path), **changes))  # type: ignore[arg-type]
        assert tree(tmp_path) == before

    def test_its_values_must_have_the_width_of_the_base(self, tmp_path: Path) -> None:
        write_sequence(tmp_path / "pass/part-0", [(1, b"\x00" * 12), (2, b"")])
        with pytest.raises(BuildError, match="value_bytes is 12, but that of the base 7_7 is 8"):
            build(patch_job(tmp_path))

    def test_without_values_it_has_the_width_of_the_base(self, tmp_path: Path) -> None:
        write_sequence(tmp_path / "pass/part-0", [(1, b"")])
        assert build(patch_job(tmp_path)).value_bytes == 8


@pytest.mark.parametrize("write", [write_sequence, write_parquet])
def test_values_of_several_widths_are_refused(tmp_path: Path, write: Write) -> None:
    (tmp_path / "pass").mkdir()
    write(tmp_path / "pass/part-0", [(7, b""), (1, value_of(1)), (2, b"\x00" * 12)])
    with pytest.raises(BuildError, match="key 2: a value of 12 bytes; the file's first has 8"):
        build(patch_job(tmp_path))


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pass").mkdir()
    write_sequence(tmp_path / "pass/part-0", [(7, b""), (1, value_of(1)), (2, value_of(np.nan))])
    with pytest.raises(BuildError, match="key 2: element 0 is nan"):
        build(patch_job(tmp_path))


def test_repeated_keys_are_refused_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "pass").mkdir()
    write_sequence(tmp_path / "pass/part-0", [(7, value_of(1)), (7, b"")])
    with pytest.raises(BuildError, match="key 7 stands in the input 2 times"):
        build(dataclasses.replace(patch_job(tmp_path), on_duplicate="error"))


def run(*flags: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        command_line.run(app, list(flags))
    return caught.value.code


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pass").mkdir()
    write_sequence(tmp_path / "pass/part-0", CHANGES)
    flags = ["--dict_name=d", f"--input_path={tmp_path}/pass", f"--output_path={tmp_path}/tables"]
    flags += ["--shard_num=2", "--job_mode=delta"]
    assert run(*flags, "--cur_version=8", "--depend_version=7") == 0
    assert "10 records of 8 bytes with 4 deleted keys into 2 tables" in capsys.readouterr().out
    assert tree(tmp_path / "tables/7_8") == ["build.json", "d_part0.table", "d_part1.table"]
    for wrong, problem in (
        (["--cur_version=8"], "--depend_version: is needed"),
        (["--depend_version=7"], "--cur_version: is needed"),
        (["--cur_version=7", "--depend_version=7"], "version 7_7: is a base"),
        (["--cur_version=8", "--depend_version=7", "--job_mode=patch"], "must be base or delta"),
    ):
        assert run(*flags, *wrong) == 2
        assert problem in capsys.readouterr().err
