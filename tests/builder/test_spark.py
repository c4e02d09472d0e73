"""The Spark engine, in processes of its own: a JVM and its workers."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cube_builder import BuildReport
from cube_builder.filesystem import Place
from cube_builder.main import app
from cube_core import command_line
from cube_core.errors import BuildError
from tests.builder import sequence_bytes as raw
from tests.builder.passes import random_part, tree
from tests.transfer.hadoop import hdfs as hdfs
from tests.transfer.remote_directories import Address, ftp_directory, hdfs_directory, s3_bucket

pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java 17 is installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"
    ),
]


def on_spark(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cube_builder.main", "--engine=spark"]
    return subprocess.run(
        [*command, "--spark_master=local[2]", *flags],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def write_pass(directory: Path) -> None:
    """Files of several kinds, with keys that stand in several of them and twice in one."""
    keys, values = random_part(directory / "part-10", 20_000, 16)
    some = zip(keys[:500].tolist(), values[:500], strict=True)
    pairs = [(key % 2**63, value.tobytes()) for key, value in some]
    (directory / "part-2").write_bytes(
        raw.compressed_file(pairs, "org.apache.hadoop.io.compress.GzipCodec", gzip.compress, 100)
    )
    again = [(key, value[::-1]) for key, value in pairs + pairs[:50]]
    (directory / "part-11").write_bytes(
        raw.compressed_file(again, "org.apache.hadoop.io.compress.DefaultCodec", zlib.compress)
    )
    rows = np.random.default_rng(5).random((3000, 4), dtype=np.float32)
    table = pa.table({"key": pa.array(keys[:3000] // 2), "embedding": pa.array(list(rows))})
    pyarrow.parquet.write_table(table, directory / "part-3")
    (directory / "part-4").write_bytes(raw.header())
    (directory / "_SUCCESS").touch()


def test_tables_are_those_of_the_local_engine_byte_for_byte(tmp_path: Path) -> None:
    write_pass(tmp_path / "pass")
    flags = ["--dict_name=d", f"--input_path={tmp_path}/pass", "--cur_version=7", "--shard_num=3"]
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, [*flags, f"--output_path={tmp_path}/local"])
    done = on_spark(*flags, f"--output_path=file://{tmp_path}/spark")
    assert done.returncode == 0, done.stderr
    assert "24050 records of 16 bytes into 3 tables" in done.stdout
    assert tree(tmp_path / "spark") == tree(tmp_path / "local")
    for path in (tmp_path / "local/7_7").iterdir():
        assert (tmp_path / "spark/7_7" / path.name).read_bytes() == path.read_bytes()
    report = BuildReport.read(tmp_path / "spark/7_7")
    assert sum(shard.duplicate_count for shard in report.shards) >= 550


def test_a_patch_is_that_of_the_local_engine_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "pass").mkdir()
    keys, values = random_part(tmp_path / "pass/part-1", 5000, 16)
    changes = [(key, b"" if key % 3 else value.tobytes()) for key, value in zip(
        keys.tolist()[:900] * 2, np.roll(values[:1800], 1, axis=0), strict=True
    )]  # fmt: skip
    (tmp_path / "pass/part-2").write_bytes(raw.hadoop_file(changes))
    # The first file has no width of its own.
    (tmp_path / "pass/part-0").write_bytes(raw.hadoop_file([(key, b"") for key in range(50)]))
    flags = ["--dict_name=d", f"--input_path={tmp_path}/pass", "--cur_version=8", "--shard_num=2"]
    flags += ["--job_mode=delta", "--depend_version=7", "--quant=int8"]
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, [*flags, f"--output_path={tmp_path}/local"])
    done = on_spark(*flags, f"--output_path=file://{tmp_path}/spark")
    assert done.returncode == 0, done.stderr
    for path in (tmp_path / "local/7_8").glob("*.table"):
        assert (tmp_path / "spark/7_8" / path.name).read_bytes() == path.read_bytes()
    report = BuildReport.read(tmp_path / "spark/7_8")
    local = BuildReport.read(tmp_path / "local/7_8")
    assert report.shards == local.shards
    assert report.quant_mean_error == pytest.approx(local.quant_mean_error)
    assert sum(shard.deletion_count for shard in report.shards) > 50


@contextlib.contextmanager
def writable_ftp(root: Path) -> Iterator[Address]:
    with ftp_directory(root, trainer_may="elradfmw") as address:
        yield lambda path: address(path).replace("://", "://trainer:s3cret@")


@pytest.mark.parametrize("serve", [s3_bucket, writable_ftp, hdfs_directory])
def test_a_pass_on_other_machines(
    tmp_path: Path, serve: Callable[[Path], contextlib.AbstractContextManager[Address]]
) -> None:
    """The input from there, the tables to there, and once more over those: in an object store, and
    in filesystems that pyarrow does not know."""
    random_part(tmp_path / "root/pass/part-0", 3000, 16)
    random_part(tmp_path / "root/pass/part-1", 2000, 16, seed=1)
    flags = ["--dict_name=d", "--cur_version=7", "--shard_num=2"]
    local = [f"--input_path={tmp_path}/root/pass", f"--output_path={tmp_path}/local"]
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, [*flags, *local])
    with serve(tmp_path / "root") as address:
        flags += [f"--input_path={address('pass')}", f"--output_path={address('tables')}"]
        for _ in range(2):
            done = on_spark(*flags)
            assert done.returncode == 0, done.stderr
            tables = Place.at(address("tables"))
            built = {file.path.removeprefix(tables.path): file for file in tables.files()}
            wanted = [path for path in (tmp_path / "local").rglob("*") if path.is_file()]
            assert sorted(built) == sorted(f"/7_7/{path.name}" for path in wanted)
            for path in wanted:
                assert built[f"/7_7/{path.name}"].read() == path.read_bytes(), path.name


@pytest.mark.parametrize(
    ("address", "reason"),
    [("nosuch://a/b", "Protocol not known: nosuch"), ("oss://bucket/b", "Install ossfs")],
)
def test_a_scheme_that_nobody_knows_is_told(address: str, reason: str) -> None:
    with pytest.raises(BuildError, match=re.escape(address)) as raised:
        Place.at(address)
    assert reason in str(raised.value)


def test_values_of_variable_width(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part-0", 1000, 8)
    random_part(tmp_path / "pass/part-1", 500, 13, seed=1)
    flags = ["--dict_name=d", f"--input_path={tmp_path}/pass", "--cur_version=7", "--shard_num=2"]
    flags += ["--value_width=variable"]
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, [*flags, f"--output_path={tmp_path}/local"])
    done = on_spark(*flags, f"--output_path=file://{tmp_path}/spark")
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "spark") == tree(tmp_path / "local")
    for path in (tmp_path / "local/7_7").iterdir():
        assert (tmp_path / "spark/7_7" / path.name).read_bytes() == path.read_bytes()


def test_a_failing_task_is_one_error_line_and_leaves_what_stood(tmp_path: Path) -> None:
    random_part(tmp_path / "pass/part-0", 1000, 8)
    flags = ["--dict_name=d", f"--input_path={tmp_path}/pass", "--cur_version=7", "--shard_num=2"]
    flags += [f"--output_path={tmp_path}/tables"]
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, flags)
    before = {path: path.read_bytes() for path in (tmp_path / "tables/7_7").iterdir()}
    (tmp_path / "pass/part-1").write_bytes(raw.paddle_file([(6, b"\x00\x00\xc0\x7f" * 2)]))
    done = on_spark(*flags)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert f"{tmp_path}/pass/part-1: key 6: element 0 is nan" in line
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "tables/7_7").iterdir()} == before
    assert tree(tmp_path / "tables") == ["7_7", *sorted(f"7_7/{path.name}" for path in before)]
