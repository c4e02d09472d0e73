"""Duplicate keys, NaN and infinities, and the bound on memory."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cube_builder import build
from cube_core.errors import BuildError
from tests.builder.passes import job, pairs_of, random_part, tree, write_part


def floats(*rows: tuple[float, ...]) -> Any:
    return np.array(rows, "<f4").view(np.uint8)


def test_duplicate_keys_are_refused_when_asked_for(tmp_path: Path) -> None:
    write_part(tmp_path / "pass/part-0", np.array([4, 9, 3], np.uint64), floats((1,), (2,), (3,)))
    write_part(tmp_path / "pass/part-1", np.array([9, 8, 9], np.uint64), floats((4,), (5,), (6,)))
    made = job(tmp_path)
    assert pairs_of(made, build(made))[9] == floats((6,)).tobytes()
    before = tree(tmp_path)
    with pytest.raises(
        BuildError, match=r"part1\.table: key 9 stands in the input 3 times \(2 rec"
    ):
        build(dataclasses.replace(made, on_duplicate="error"))
    assert tree(tmp_path) == before
    (tmp_path / "pass/part-1").unlink()
    assert build(dataclasses.replace(made, on_duplicate="error")).record_count == 3


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_unless_kept(tmp_path: Path, number: float) -> None:
    write_part(tmp_path / "pass", np.array([4, 9], np.uint64), floats((1, 2, 3), (4, 5, number)))
    made = job(tmp_path)
    with pytest.raises(BuildError, match=rf"pass: key 9: element 2 is {number}; build with --on_"):
        build(made)
    assert tree(tmp_path) == ["pass"]
    kept = dataclasses.replace(made, on_nonfinite="keep")
    assert pairs_of(kept, build(kept))[9] == floats((4, 5, number)).tobytes()


def test_values_that_cannot_be_float32_are_not_looked_into(tmp_path: Path) -> None:
    write_part(tmp_path / "pass", np.array([4], np.uint64), np.full((1, 5), 255, np.uint8))
    made = job(tmp_path)
    assert pairs_of(made, build(made)) == {4: b"\xff" * 5}


def test_choices_that_are_none_are_refused(tmp_path: Path) -> None:
    made: Any = job(tmp_path)
    for field in ("on_duplicate", "on_nonfinite"):
        with pytest.raises(BuildError, match=f"{field} 'first': must be"):
            dataclasses.replace(made, **{field: "first"})


def test_a_shard_over_the_bound_is_refused(tmp_path: Path) -> None:
    # Nearly all keys are of one shard.
    keys = np.arange(0, 800_000, 2, dtype=np.uint64)
    write_part(tmp_path / "pass", keys, np.zeros((len(keys), 40), np.uint8))
    made = job(tmp_path)
    with pytest.raises(
        BuildError, match=r"shard 0 has \d+ records or more, which take \d+ MB: over memory_mb=140;"
    ):
        build(dataclasses.replace(made, memory_mb=140))
    assert tree(tmp_path) == ["pass"]
    build(dataclasses.replace(made, memory_mb=160))
    with pytest.raises(BuildError, match="memory_mb 128: must be over 128"):
        build(dataclasses.replace(made, memory_mb=128))


# Not ru_maxrss, which a process takes over from the one that started it.
MEASURE = """
import re, sys
from pathlib import Path
from cube_builder.main import app
from cube_core.command_line import run
try:
    run(app, sys.argv[1:])
finally:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.parametrize("width", [4, 400])
def test_memory_stays_within_the_bound(tmp_path: Path, width: int) -> None:
    memory_mb = 128 + 48
    shard_num = 4
    # As many records as just fit.
    count = shard_num * int(46 * 2**20 / (width + 32))
    keys, _ = random_part(tmp_path / "pass/part-0", count, width)
    flags = [
        "--dict_name=d",
        f"--input_path={tmp_path}/pass",
        f"--output_path={tmp_path}/tables",
        f"--shard_num={shard_num}",
        f"--memory_mb={memory_mb}",
    ]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    peak_mib = int(done.stdout.splitlines()[-1]) / 1024
    assert peak_mib < memory_mb
    assert len(keys) == count
