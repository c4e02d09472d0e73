"""The root command: keys of a file in, rows and the original's figures out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from cube_core._native import write_table
from cube_core.endpoint import Endpoint
from tests.cli.conftest import cli, write_conf
from tests.processes import running
from tests.server.tables import KEY_COUNT, rows_of


def hexadecimal(key: int) -> str:
    return rows_of(np.array([key], np.uint64), 10).tobytes().hex().upper()


def test_rows_are_printed_in_the_order_of_the_file(conf: Path, tmp_path: Path) -> None:
    keys = [3, 1998, KEY_COUNT, 0, -1, 3]
    (tmp_path / "keys").write_text("".join(f"{key}\n" for key in keys) + "\n")
    done = cli(f"--config_file={conf}", f"--keys={tmp_path / 'keys'}", "-batch=4", "--print_output")
    assert done.code == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("key:")]
    assert printed == [
        f"key:3 value:{hexadecimal(3)}",
        f"key:1998 value:{hexadecimal(1998)}",
        f"key:{KEY_COUNT} value:",
        f"key:0 value:{hexadecimal(0)}",
        f"key:{2**64 - 1} value:",
        f"key:3 value:{hexadecimal(3)}",
    ]
    assert "6 keys, 66.67% found" in done.stdout


def test_values_of_any_width_are_printed(tmp_path: Path) -> None:
    (tmp_path / "data" / "1_1").mkdir(parents=True)
    (tmp_path / "data" / "VERSION").write_text("1_1")
    write_table(
        str(tmp_path / "data" / "1_1" / "test_dict_part0.table"),
        np.array([1, 2], np.uint64),
        np.frombuffer(b"\x01\x02\xff\x04", np.uint8),
        dict_name="test_dict",
        version="1_1",
        shard=0,
        shard_num=1,
        value_kind="variable",
        offsets=np.array([0, 1, 4], np.int64),
    )
    with running("cube_server.main", ["--port=0", "--grpc_port=-1"], cwd=tmp_path) as role:
        conf = write_conf(tmp_path / "cube.conf", [[Endpoint("127.0.0.1", role.port())]])
        (tmp_path / "keys").write_text("2\n3\n1\n")
        done = cli(f"--config_file={conf}", f"--keys={tmp_path / 'keys'}", "--print_output")
    assert done.code == 0, done.stderr
    assert done.stdout.startswith("key:2 value:02FF04\nkey:3 value:\nkey:1 value:01\n")


def test_every_thread_seeks_every_key_and_the_figures_fit_each_other(
    conf: Path, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("".join(f"{key}\n" for key in range(1001)))
    flags = tmp_path / "flags"
    flags.write_text(f"--config_file={conf}\n--batch=100\n--thread_num=3\n--logtostderr=1\n")
    done = cli(f"--flagfile={flags}", f"--keys={tmp_path / 'keys'}", "--noprint_output")
    assert done.code == 0, done.stderr
    assert "key:" not in done.stdout
    threads = re.findall(
        r"^thread \d seek cost avg = (\d+) max = (\d+) min = (\d+)", done.stdout, re.M
    )
    assert len(threads) == 3
    for average, largest, smallest in threads:
        assert 0 < int(smallest) <= int(average) <= int(largest)
    assert re.search(r"^3 thread seek cost avg = \d+ max = \d+ min = \d+$", done.stdout, re.M)
    assert re.search(r"^total_request = 33 speed = \d+ query per second$", done.stdout, re.M)
    figures = re.search(
        r"^33 requests, mean (\d+), p50 (\d+) p90 (\d+) p95 (\d+) p99 (\d+) p99.9 (\d+),"
        r" max (\d+) us, (\d+) qps$",
        done.stdout,
        re.M,
    )
    assert figures is not None, done.stdout
    at = list(map(int, figures.groups()))
    assert at[1:7] == sorted(at[1:7])
    assert at[6] == max(int(largest) for _, largest, _ in threads)
    assert "3003 keys, 100.00% found" in done.stdout


def test_failed_seeks_are_counted_and_named(tmp_path: Path) -> None:
    conf = write_conf(tmp_path / "cube.conf", [[Endpoint("127.0.0.1", 1)]])
    (tmp_path / "keys").write_text("1\n2\n")
    done = cli(
        f"--config_file={conf}", f"--keys={tmp_path / 'keys'}", "--batch=1", "--retry=0",
        "--timeout=500", "--print_output",
    )  # fmt: skip
    assert done.code == 1
    assert "key:" not in done.stdout
    assert "2 requests FAILED, the first: " in done.stdout
    assert "127.0.0.1:1" in done.stdout
    assert "0 requests, mean 0" in done.stdout


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no keys"),
        ("1\n\nx2\n", "keys:3: 'x2' is no decimal number of 64 bits"),
        ("18446744073709551616\n", "keys:1: "),
        ("1_0\n", "keys:1: "),
        ("9" * 10000, "keys:1: "),
        ("\x80", "cannot be read"),
    ],
)
def test_files_that_are_no_keys_are_refused(
    conf: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "keys").write_text(text)
    done = cli(f"--config_file={conf}", f"--keys={tmp_path / 'keys'}")
    assert done.code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--dict=other"], "'other'"),
        (["--batch=0"], "--batch"),
        (["--keys=none"], "none"),
        (["--batch=3", "bench"], "write flags after 'bench'"),
        (["--no_such_flag=1"], "no_such_flag"),
    ],
)
def test_wrong_usage_is_told(conf: Path, arguments: list[str], problem: str) -> None:
    done = cli(f"--config_file={conf}", *arguments)
    assert done.code == 2
    assert problem in done.stderr


def test_a_dict_has_to_be_named_when_there_are_several(tmp_path: Path) -> None:
    conf = tmp_path / "cube.conf"
    nodes = [{"ip": "127.0.0.1", "port": 1}]
    conf.write_text(json.dumps([{"dict_name": d, "shard": 1, "nodes": nodes} for d in "ab"]))
    done = cli(f"--config_file={conf}")
    assert done.code == 2
    assert done.stderr == "error: command line: --dict: name one of: a, b\n"
