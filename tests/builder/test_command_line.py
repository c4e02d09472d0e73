"""`cube-builder` as its users call it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from cube_builder import BuildReport
from cube_builder.main import app
from cube_core import command_line
from tests.builder import sequence_bytes as raw
from tests.builder.passes import random_part, tree, write_part
from tests.waiting import wait_until

RUN = [sys.executable, "-m", "cube_builder.main"]
ROWS = np.arange(6, dtype=np.float32).reshape(3, 2) / 8


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        command_line.run(app, arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


def flags_of_the_original(dashes: str) -> list[str]:
    return [
        f"{dashes}{flag}"
        for flag in (
            "dict_name=test_dict",
            "job_mode=base",
            "last_version=0",
            "cur_version=1",
            "depend_version=1",
            "input_path=./pass",
            "output_path=./tables",
            "shard_num=2",
            "only_build=true",
            "master_address=127.0.0.1",
        )
    ]


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_the_original_command_line_builds(
    tmp_path: Path, dashes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    random_part(tmp_path / "pass", 100, 40)
    assert run(*flags_of_the_original(dashes)) == 0
    assert capsys.readouterr().out.startswith("built tables/1_1: 100 records of 40 bytes into 2 ")
    assert tree(tmp_path / "tables") == [
        "1_1",
        "1_1/build.json",
        "1_1/test_dict_part0.table",
        "1_1/test_dict_part1.table",
    ]


def test_flags_from_a_file(tmp_path: Path) -> None:
    random_part(tmp_path / "pass", 100, 40)
    (tmp_path / "gflags.conf").write_text("\n".join(flags_of_the_original("--")))
    assert run("--flagfile=gflags.conf", "--shard_num=1") == 0
    assert BuildReport.read(tmp_path / "tables/1_1").shard_num == 1


def test_versions_of_the_original(tmp_path: Path) -> None:
    random_part(tmp_path / "pass", 100, 40)
    base = ["--dict_name=d", "--input_path=pass", "--output_path=tables", "--shard_num=1"]
    before = int(time.time())
    assert run(*base) == 0
    [directory] = (tmp_path / "tables").iterdir()
    depend, _, current = directory.name.partition("_")
    assert depend == current
    assert before <= int(current) <= int(time.time())
    assert run(*base, "--depend_version=0", "--cur_version=5") == 0
    assert BuildReport.read(tmp_path / "tables/0_5").version == "0_5"


def test_the_process_imports_nothing_that_is_optional(tmp_path: Path) -> None:
    random_part(tmp_path / "pass", 100, 40)
    script = (
        "import sys, cube_builder.main\n"
        "try: cube_builder.main.main()\n"
        "finally: print([m for m in ('paddle', 'pyspark', 'pyarrow', 'lz4') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *flags_of_the_original("--")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


GOOD = ["--dict_name=d", "--input_path=pass", "--output_path=tables", "--shard_num=2"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (GOOD[1:], "--dict_name: is needed"),
        (GOOD[:1] + GOOD[2:], "--input_path: is needed"),
        (GOOD[:3], "shard_num -1: must be 1 to 65535"),
        ([*GOOD, "--shard_num=0"], "shard_num 0: must be 1 to 65535"),
        ([*GOOD, "--shard_num=two"], "'--shard_num'"),
        ([*GOOD, "--job_mode=delta"], "--cur_version: is needed"),
        ([*GOOD, "--cur_version=../1"], "--cur_version: version '../1_../1' is not"),
        ([*GOOD, "--input_path=none"], "none: no such file or directory"),
        ([*GOOD, "--input_path=empty"], "empty: holds no input file"),
        ([*GOOD, "--input_path=cut"], "cut: the file ends inside a record"),
        ([*GOOD, "--nonsense=1"], "--nonsense"),
        ([*GOOD, "--output_path=cut"], "cut"),
        (["cat", "none"], "none: no such file or directory"),
        (["cat", "noise"], "noise"),
        (["text", "--input_path=none", "--output_path=part"], "none: no such file"),
        (["text", "--input_path=noise", "--output_path=part"], "noise:1: "),
        (["text", "--input_path=noise", "--output_path=part", "--dialect=x"], "--dialect: 'x'"),
        (["dump", "--input_path=none", "--output_path=out"], "none: no such file"),
        (["dump", "--input_path=noise", "--output_path=out"], "noise: version 1936289646"),
        (["dump", "--input_path=noise", "--output_path=out", "--id=1"], "--donefile: needed"),
        (["dump", "--input_path=noise", "--output_path=out", "--donefile=d"], "--id: is needed"),
    ],
)
def test_bad_input_is_named_and_ends_with_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    random_part(tmp_path / "pass", 100, 40)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut").write_bytes(raw.paddle_file([(1, b"x" * 8)])[:-1])
    (tmp_path / "noise").write_bytes(b"noise that is no file of ours\n")
    before = tree(tmp_path)
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert problem in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert tree(tmp_path) == before


def test_text_build_cat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pairs.txt").write_text("1:0.1 2\n18446744073709551615:-3.5 1e-10\n2:0 0\n")
    (tmp_path / "pass").mkdir()
    assert run("text", "--input_path=pairs.txt", "--output_path=pass/part-00000") == 0
    assert run(*GOOD, "--cur_version=1") == 0
    capsys.readouterr()
    assert run("cat", "pass/part-00000") == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed == ["1:0.1 2.0", "18446744073709551615:-3.5 1e-10", "2:0.0 0.0"]
    assert run("cat", "tables/1_1/d_part1.table") == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(listed[:2])
    assert run("cat", "tables/1_1") == 0
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(listed)
    assert run("cat", "pass", "--limit=2") == 0
    assert capsys.readouterr().out.splitlines() == listed[:2]


def test_cat_into_a_pipe_that_closes(tmp_path: Path) -> None:
    random_part(tmp_path / "pass", 100_000, 40)
    done = subprocess.run(
        ["bash", "-c", f"{' '.join(RUN)} cat pass | head -n 1; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_dump_announces_the_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "var").write_bytes(
        bytes(16) + b"\x06\x00\x00\x00\x08\x05\x10\x03\x10\x02" + ROWS.tobytes()
    )
    (tmp_path / "10/dense").mkdir(parents=True)
    arguments = ["--input_path=var", "--output_path=10/embedding", "--rows_per_file=2"]
    announced = ["--donefile=donefile/base.txt", "--id=10", "--dense=10/dense"]
    assert run("dump", *arguments, *announced) == 0
    assert capsys.readouterr().out == "dumped 10/embedding: 3 rows of 2 floats in 2 files\n"
    line = json.loads((tmp_path / "donefile/base.txt").read_text())
    assert line == {
        "id": "10",
        "key": "10",
        "input": str(tmp_path / "10/embedding"),
        "dense": str(tmp_path / "10/dense"),
    }
    assert run("cat", "10/embedding") == 0
    assert capsys.readouterr().out == "0:0.0 0.125\n1:0.25 0.375\n2:0.5 0.625\n"
    assert run("dump", *arguments, "--donefile=donefile/base.txt", "--id=11", "--dense=none") == 2
    assert len((tmp_path / "donefile/base.txt").read_text().splitlines()) == 1


@pytest.mark.parametrize("command", [[], ["dump"], ["cat"], ["text"]])
def test_every_help_has_an_example(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == 0
    assert "Example:" in capsys.readouterr().out


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(tmp_path: Path, signal_number: signal.Signals) -> None:
    write_part(
        tmp_path / "pass",
        np.arange(200_000, dtype=np.uint64),
        np.zeros((200_000, 40), np.uint8),
    )
    process = subprocess.Popen(
        # So many tables that the signal comes long before the end.
        [*RUN, *GOOD, "--cur_version=1", "--shard_num=5000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: list((tmp_path / "tables").glob(".1_1.*/*.table")), what="a table")
        process.send_signal(signal_number)
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == (143 if signal_number == signal.SIGTERM else 130)
    assert tree(tmp_path) == ["pass"]
