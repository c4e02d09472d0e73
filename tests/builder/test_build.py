"""Passes to shard tables, through the Python API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_builder import BuildJob, BuildReport, Progress, build
from cube_core._native import crc32c_file
from cube_core.errors import BuildError, CubeError, SequenceFileError
from cube_core.versions import Version
from tests.builder import sequence_bytes as raw
from tests.builder.passes import job, random_part, tables_of, tree, write_part


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shard_num=st.integers(1, 9),
    width=st.integers(1, 60),
    counts=st.lists(st.integers(0, 300), min_size=1, max_size=4),
    key_max=st.sampled_from([3, 500, 2**64 - 1]),
    seed=st.integers(0, 1000),
)
def test_every_key_is_in_its_shard_with_its_last_value(
    tmp_path_factory: pytest.TempPathFactory,
    shard_num: int,
    width: int,
    counts: list[int],
    key_max: int,
    seed: int,
) -> None:
    directory = tmp_path_factory.mktemp("build")
    draw = np.random.default_rng(seed)
    expected: dict[int, bytes] = {}
    for number, count in enumerate((*counts, 1)):
        keys = draw.integers(0, key_max, count, dtype=np.uint64, endpoint=True)
        values = draw.integers(0, 128, (count, width), dtype=np.uint8)
        dialect = "paddle" if number % 2 else "hadoop"
        write_part(directory / f"pass/part-{number}", keys, values, dialect)
        rows = (value.tobytes() for value in values)
        expected.update(zip(keys.tolist(), rows, strict=True))
    made = job(directory, shard_num)
    report = build(made)
    assert report == BuildReport.read(made.directory)
    assert report.record_count == sum(counts) + 1
    assert report.value_bytes == width
    for shard, (table, pairs) in tables_of(made, report).items():
        assert pairs == {key: row for key, row in expected.items() if key % shard_num == shard}
        assert (table.dict_name, table.version) == ("test_dict", "7_7")
        assert (table.shard, table.shard_num, table.value_bytes) == (shard, shard_num, width)


def test_build_json_says_what_the_files_are(tmp_path: Path) -> None:
    keys, _ = random_part(tmp_path / "pass/part", 1000, 40)
    write_part(tmp_path / "pass/part-again", keys[:10], np.zeros((10, 40), np.uint8))
    made = job(tmp_path, shard_num=3)
    build(made)
    assert tree(made.directory) == ["build.json", *(made.table_name(shard) for shard in range(3))]
    fields = json.loads((made.directory / "build.json").read_text())
    assert fields["dict_name"] == "test_dict"
    assert fields["version"] == "7_7"
    assert (fields["shard_num"], fields["dim"], fields["value_bytes"]) == (3, 10, 40)
    assert sum(shard["duplicate_count"] for shard in fields["shards"]) == 10
    for number, shard in enumerate(fields["shards"]):
        path = made.directory / shard["file"]
        assert shard["shard"] == number
        assert shard["key_count"] == int(np.sum(keys % 3 == number))
        assert shard["file_bytes"] == path.stat().st_size
        assert shard["crc32c"] == crc32c_file(str(path))
    assert len({shard["crc32c"] for shard in fields["shards"]}) == 3


def test_later_files_win_in_natural_order(tmp_path: Path) -> None:
    one = np.array([1], np.uint64)
    for name, value in (("part-10", 10), ("part-9", 9), ("sub/part-0", 200)):
        write_part(tmp_path / "pass" / name, one, np.full((1, 4), value, np.uint8))
    (tmp_path / "pass/_SUCCESS").touch()
    (tmp_path / "pass/.part-9.crc").write_bytes(b"crc")
    (tmp_path / "pass/_temporary").mkdir()
    (tmp_path / "pass/_temporary/part-99").write_bytes(b"half")
    made = job(tmp_path, shard_num=1)
    assert tables_of(made, build(made))[0][1] == {1: bytes([200] * 4)}
    (tmp_path / "pass/sub/part-0").unlink()
    assert tables_of(made, build(made))[0][1] == {1: bytes([10] * 4)}


def test_a_shard_without_keys_gets_an_empty_table(tmp_path: Path) -> None:
    write_part(tmp_path / "pass", np.array([4, 8], np.uint64), np.ones((2, 12), np.uint8))
    made = job(tmp_path, shard_num=4)
    tables = tables_of(made, build(made))
    assert {shard: len(pairs) for shard, (_, pairs) in tables.items()} == {0: 2, 1: 0, 2: 0, 3: 0}
    assert all(table.value_bytes == 12 for table, _ in tables.values())


def test_a_rebuild_replaces_and_equal_input_gives_equal_files(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part", 500, 8, seed=1)
    made = job(tmp_path)
    build(made)
    first = {path.name: path.read_bytes() for path in made.directory.iterdir()}
    build(made)
    assert {path.name: path.read_bytes() for path in made.directory.iterdir()} == first
    random_part(tmp_path / "pass/part", 300, 8, seed=2)
    report = build(job(tmp_path, shard_num=1))
    assert report.record_count == 300
    assert tree(tmp_path / "tables") == [
        "7_7",
        "7_7/build.json",
        "7_7/test_dict_part0.table",
    ]


def test_progress_is_told(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part-0", 500, 8)
    random_part(tmp_path / "pass/part-1", 300, 8)
    told: list[Progress] = []
    build(job(tmp_path), told.append)
    size = sum(path.stat().st_size for path in (tmp_path / "pass").iterdir())
    assert told[-3:] == [
        Progress("read", size, size, 800),
        Progress("write", 1, 2, 800),
        Progress("write", 2, 2, 800),
    ]


def test_another_directory_is_never_replaced(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part", 50, 8)
    made = job(tmp_path)
    made.directory.mkdir(parents=True)
    (made.directory / "precious").write_text("data")
    with pytest.raises(BuildError, match="exists and is no build of cube-builder"):
        build(made)
    (made.directory / "precious").unlink()
    build(made)
    other = BuildJob("other", made.input_path, made.output_path, 2, made.version)
    with pytest.raises(BuildError, match="holds a build of dict 'test_dict'"):
        build(other)
    assert BuildReport.read(made.directory).dict_name == "test_dict"


def test_jobs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "dict_name": "d",
        "input_path": tmp_path,
        "output_path": tmp_path,
        "shard_num": 1,
        "version": Version("1", "1"),
    }
    for shard_num in (0, -1, 65_536):
        with pytest.raises(BuildError, match=f"shard_num {shard_num}"):
            BuildJob(**{**fields, "shard_num": shard_num})
    for name in ("", "../d", ".d", "a/b"):
        with pytest.raises(BuildError, match="dict_name"):
            BuildJob(**{**fields, "dict_name": name})


def bad_pass(name: str, directory: Path) -> None:
    """Makes an input that is no pass, with a good file first where that matters."""
    part = directory / "part-1"
    if name == "no such path":
        return
    directory.mkdir()
    if name == "no files":
        (directory / "_SUCCESS").touch()
        return
    if name == "no records":
        part.write_bytes(raw.header())
        return
    random_part(directory / "part-0", 5000, 8)
    good = raw.paddle_file((key, b"x" * 8) for key in range(100))
    part.write_bytes(
        {
            "another width": raw.paddle_file([(1, b"x" * 9)]),
            "another width inside": good + raw.paddle_record(1, b"x" * 9),
            "cut off": good[:-3],
            "no SequenceFile": b"key value\n",
            "empty file": b"",
            "shorter than its manifest": good,
            "not in its manifest": good,
            "bad manifest": good,
        }[name]
    )
    sizes = {"part-0": (directory / "part-0").stat().st_size, "part-1": len(good)}
    if name == "shorter than its manifest":
        part.write_bytes(good[: len(good) - len(raw.paddle_record(0, b"x" * 8))])
    elif name == "not in its manifest":
        del sizes["part-1"]
    if "manifest" in name:
        files = [{"name": file, "size": size} for file, size in sizes.items()]
        manifest = "[" if name == "bad manifest" else json.dumps({"files": files})
        (directory / "_manifest.json").write_text(manifest)


def test_a_manifest_need_not_say_sizes(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part-0", 10, 8)
    manifest = tmp_path / "pass/_manifest.json"
    manifest.write_text('{"files": [{"name": "part-0"}]}')
    assert build(job(tmp_path)).record_count == 10
    manifest.write_text('{"files": [{"name": "part-0"}, {"name": "part-1"}]}')
    with pytest.raises(BuildError, match=r"part-1: no such file, but .* says that there is one"):
        build(job(tmp_path))


BAD_PASSES = {
    "no such path": "pass: no such file or directory",
    "no files": "pass: holds no input file",
    "no records": "pass/part-1: no records",
    "another width": r"part-1: values of 9 bytes, but those of .*part-0 have 8",
    "another width inside": r"part-1: key 1: a value of 9 bytes; the file's first has 8 \(offset",
    "cut off": r"part-1: the file ends inside a record or sync marker \(offset",
    "no SequenceFile": 'part-1: no SequenceFile: it does not begin with "SEQ"',
    "empty file": "part-1: no SequenceFile",
    "shorter than its manifest": r"part-1: \d+ bytes, but _manifest.json says \d+ bytes",
    "not in its manifest": r"part-1: \d+ bytes, but _manifest.json says no such file",
    "bad manifest": "_manifest.json: no manifest of a pass",
}


@pytest.mark.parametrize("name", BAD_PASSES)
def test_a_bad_pass_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    bad_pass(name, tmp_path / "pass")
    before = tree(tmp_path)
    with pytest.raises(CubeError, match=BAD_PASSES[name]) as caught:
        build(job(tmp_path))
    assert isinstance(caught.value, (BuildError, SequenceFileError))
    assert tree(tmp_path) == before


def test_a_failed_rebuild_keeps_the_earlier_build(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part-0", 500, 8)
    made = job(tmp_path)
    report = build(made)
    before = tree(tmp_path / "tables")
    (tmp_path / "pass/part-1").write_bytes(raw.paddle_file([(1, b"x" * 8)])[:-1])
    with pytest.raises(SequenceFileError):
        build(made)
    assert tree(tmp_path / "tables") == before
    assert BuildReport.read(made.directory) == report


def test_what_a_killed_build_left_is_removed(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part-0", 500, 8)
    leftover = tmp_path / "tables/.7_7.abc.staging/spill"
    leftover.mkdir(parents=True)
    (leftover / "0.keys").write_bytes(b"x" * 100)
    other = tmp_path / "tables/.8_8.abc.staging"
    other.mkdir()
    build(job(tmp_path))
    assert not leftover.parent.exists()
    assert other.exists()


# Not ru_maxrss, which a process takes over from the one that started it.
MEASURE = """
import re, sys
from pathlib import Path
from cube_builder import BuildJob, build
from cube_core.versions import Version

build(BuildJob("d", Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Version("1", "1"),
               memory_mb=140))
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def test_memory_is_bounded_by_one_shard(tmp_path: Path) -> None:
    for number in range(4):
        random_part(tmp_path / f"pass/part-{number}", 250_000, 40, seed=number)

    def peak_mib(input_name: str, shard_num: int) -> float:
        arguments = [str(tmp_path / input_name), str(tmp_path / "tables"), str(shard_num)]
        measured = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments], check=True, capture_output=True, text=True
        )
        return int(measured.stdout) / 1024

    quarter = peak_mib("pass/part-0", 4)
    whole = peak_mib("pass", 16)
    # Three quarters of the pass are 34 MiB.
    assert whole < quarter + 24
    assert whole < 140
