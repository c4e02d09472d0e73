"""Criteo rows become the ids and values that Paddle's CTR example makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr_serving.criteo import HASH_ROWS, hash_fields, read_batches, read_rows
from cube_core.errors import FormatError

DENSE = ["1", "-3", "100", "", "64000", "250", "0", "50", "500", "10", "", "-1", "25"]
CATEGORIES = [f"{index:08x}" for index in range(26)]
SHARED = Path(__file__).parents[3] / "shared" / "data" / "criteo"


def write(path: Path, *rows: list[str], separator: str = "\t") -> Path:
    path.write_text("".join(separator.join(row) + "\n" for row in rows))
    return path


# Printed by CPython 2.7.18: hash(str(position) + field) % 1000001.
@pytest.mark.parametrize(
    ("position", "field", "expected"),
    [
        (13, b"", 25201),
        (13, b"68fd1e64", 421825),
        (14, b"80e26c9b", 969890),
        (38, b"9727dd16", 606390),
        (25, b"a", 204130),
        (20, b"\xc3\xa9\x00z", 92542),
    ],
)
def test_hash_is_that_of_python_2(position: int, field: bytes, expected: int) -> None:
    assert hash_fields([field], position).tolist() == [expected]


def hash_one(text: bytes) -> int:
    """The rule as it is written down, one character at a time."""
    x = text[0] << 7
    for character in text:
        x = ((1000003 * x) ^ character) % 2**64
    x ^= len(text)
    signed = x - 2**64 if x >= 2**63 else x
    return (-2 if signed == -1 else signed) % HASH_ROWS


@given(st.lists(st.binary(max_size=20)), st.integers(0, 38))
def test_hash_of_many_equals_hash_of_each(fields: list[bytes], position: int) -> None:
    expected = [hash_one(str(position).encode() + field) for field in fields]
    assert hash_fields(fields, position).tolist() == expected


def test_dense_values_are_scaled_and_missing_ones_are_zero(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path / "rows.tsv", DENSE + CATEGORIES))
    expected = [0.05, 0.0, 1.0, 0.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 0.0, -0.1, 0.5]
    np.testing.assert_array_equal(rows.dense, np.array([expected], np.float32))
    assert rows.dense.dtype == np.float32
    assert rows.labels is None


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("extra", [[], ["Label"], ["Id", "Label"]])
def test_every_layout_gives_the_same_features(
    tmp_path: Path, separator: str, header: bool, extra: list[str]
) -> None:
    names = [*extra, *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
    prefix = {"Id": "10000000", "Label": "1"}
    row = [*(prefix[name] for name in extra), *DENSE, *CATEGORIES]
    path = write(tmp_path / "rows", *([names] if header else []), row, row, separator=separator)
    rows = read_rows(path)
    plain = read_rows(write(tmp_path / "plain", DENSE + CATEGORIES))
    np.testing.assert_array_equal(rows.sparse_ids, plain.sparse_ids.repeat(2, axis=0))
    np.testing.assert_array_equal(rows.dense, plain.dense.repeat(2, axis=0))
    assert (rows.labels is None) == (not extra)
    if rows.labels is not None:
        assert rows.labels.tolist() == [1, 1]


def test_batches_cut_the_file_without_losing_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "rows", *([str(row), *DENSE[1:], *CATEGORIES] for row in range(7)))
    batches = list(read_batches(path, rows_per_batch=3, rows_max=5))
    assert [len(batch.dense) for batch in batches] == [3, 2]
    first_values = np.concatenate([batch.dense[:, 0] for batch in batches])
    np.testing.assert_allclose(first_values * 20, np.arange(5), rtol=1e-6)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no rows"),
        (["\t".join(DENSE)], ":1: 13 fields; a row has 39"),
        (["\t".join(DENSE + CATEGORIES), "1\t2"], ":2: 2 fields where the first line has 39"),
        (["\t".join(["x", *DENSE[1:], *CATEGORIES])], ":1: I1 is 'x', no number"),
        (["\t".join([*DENSE[:12], "nan", *CATEGORIES])], ":1: I13 is 'nan', no number"),
        (["\t".join(["2", *DENSE, *CATEGORIES])], ":1: Label is '2', neither 0 nor 1"),
        (["\t".join([*DENSE, *CATEGORIES[1:], "a" * 1025])], ":1: a field is longer than 1024"),
        (["Id,I2,I1"], ":1: the header must be"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(FormatError) as raised:
        read_rows(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the Criteo sample is not beside the repository")
def test_the_public_sample_reads_whole() -> None:
    rows = read_rows(SHARED / "train.tiny.csv")
    assert rows.labels is not None
    assert (len(rows.labels), int(rows.labels.sum())) == (1999, 418)
    assert rows.sparse_ids[0, [0, 1, 25]].tolist() == [421825, 969890, 606390]
    assert read_rows(SHARED / "serving_1000.tsv").sparse_ids.shape == (1000, 26)
