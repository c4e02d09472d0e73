"""Rows in fewer bytes: what is stored, what is served, and how far it is off."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cube_builder import BuildJob, BuildReport, build
from cube_builder.main import app
from cube_builder.quantize import Quant
from cube_core import command_line
from cube_core._native import Seeker, SeekPlan, Table
from cube_core.errors import BuildError
from tests.builder.passes import job, tree, write_part

Rows = NDArray[np.float32]


def built(directory: Path, rows: Rows, quant: Quant) -> tuple[BuildJob, BuildReport]:
    keys = np.arange(len(rows), dtype=np.uint64) * 3
    write_part(directory / "pass", keys, np.ascontiguousarray(rows).view(np.uint8))
    made = dataclasses.replace(job(directory, shard_num=1), quant=quant)
    return made, build(made)


def served(made: BuildJob, count: int, dim: int) -> Rows:
    """The rows as a client of the server's kernel gets them."""
    table = Table.open(str(made.directory / made.table_name(0)))
    seeker = Seeker(keys_per_request_max=1 << 20, frame_bytes_max=1 << 26)
    seeker.set_tables(table)
    plan = SeekPlan(np.arange(count, dtype=np.uint64) * 3, 1)
    rows, status = np.zeros((count, dim), np.float32), np.zeros(count, np.int32)
    plan.decode(0, seeker.seek(plan.payload(0)), rows, status)
    assert not status.any()
    values, _ = table.get(np.arange(count, dtype=np.uint64) * 3)
    np.testing.assert_array_equal(values.view("<f4"), rows)
    return rows


finite_rows = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 20), st.integers(1, 20)),
    elements=st.floats(-(2.0**100), 2.0**100, width=32),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=finite_rows)
@example(rows=np.array([[0, 2.8e-44]], np.float32))
def test_int8_rows_have_the_smallest_error(tmp_path: Path, rows: Rows) -> None:
    made, report = built(tmp_path, rows, "int8")
    errors = np.abs(served(made, *rows.shape).astype(np.float64) - rows)
    spans = rows.max(axis=1).astype(np.float64) - rows.min(axis=1)
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    # Half a step, and what float32 cannot say of numbers of that size: 255 steps, each rounded to
    # a multiple of the smallest float32 (2**-149), are off by 255 * 2**-150 together.
    assert (errors.max(axis=1) <= spans / 510 + largest * 2**-22 + 255 * 2.0**-150).all()
    assert report.quant_max_error == pytest.approx(errors.max(), rel=1e-6, abs=1e-44)
    assert report.quant_mean_error == pytest.approx(errors.mean(), rel=1e-6, abs=1e-44)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=finite_rows)
def test_fp16_rows_are_the_nearest_halves(tmp_path: Path, rows: Rows) -> None:
    made, report = built(tmp_path, rows, "fp16")
    expected = np.clip(rows, -65504, 65504).astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(served(made, *rows.shape), expected)
    assert report.quant_max_error == np.abs(expected.astype(np.float64) - rows).max()


def test_every_half_is_served_exactly(tmp_path: Path) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    rows = halves[np.isfinite(halves)].astype(np.float32).reshape(-1, 8)
    made, report = built(tmp_path, rows, "fp16")
    np.testing.assert_array_equal(served(made, *rows.shape), rows)
    assert (report.quant_max_error, report.quant_mean_error) == (0, 0)


@pytest.mark.parametrize(("quant", "row_bytes"), [("none", 40), ("fp16", 20), ("int8", 18)])
def test_tables_are_smaller_and_say_how_they_are_stored(
    tmp_path: Path, quant: Quant, row_bytes: int
) -> None:
    rows = np.random.default_rng(1).standard_normal((5000, 10), dtype=np.float32)
    made, report = built(tmp_path, rows, quant)
    table = Table.open(str(made.directory / made.table_name(0)))
    assert table.value_kind == {"none": "bytes"}.get(quant, quant)
    assert (table.value_bytes, report.value_bytes, report.dim) == (40, 40, 10)
    assert 0 <= table.file_bytes - 5000 * (8 + row_bytes) < 6000
    assert BuildReport.read(made.directory) == report
    assert report.quant == quant


def test_what_is_no_finite_float32_is_refused(tmp_path: Path) -> None:
    write_part(tmp_path / "pass", np.array([1], np.uint64), np.zeros((1, 6), np.uint8))
    made: Any = dataclasses.replace(job(tmp_path), quant="int8")
    with pytest.raises(BuildError, match="pass: values of 6 bytes are no float32"):
        build(made)
    with pytest.raises(BuildError, match="quant int8: needs finite values"):
        dataclasses.replace(made, on_nonfinite="keep")
    with pytest.raises(BuildError, match="quant 'int4': must be none, fp16 or int8"):
        dataclasses.replace(made, quant="int4")
    assert tree(tmp_path) == ["pass"]


def test_the_command_line_says_the_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.array([[0.0, 1.0, 0.5]], np.float32)
    write_part(tmp_path / "pass", np.array([1], np.uint64), rows.view(np.uint8))
    flags = ["--dict_name=d", f"--input_path={tmp_path}/pass", "--shard_num=1", "--cur_version=1"]
    with pytest.raises(SystemExit, match="0"):
        command_line.run(app, [*flags, f"--output_path={tmp_path}/tables", "--quant=int8"])
    out = capsys.readouterr().out
    assert out.startswith("stored as int8: elements change by 0.00196 at most, 0.000654 in ")
