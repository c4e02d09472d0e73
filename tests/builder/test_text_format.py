"""`key:v1 v2 …` lines, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_builder.pairs import read_pairs
from cube_builder.text_format import format_pairs, text_to_sequence_file
from cube_core.errors import BuildError
from tests.builder.passes import tree, write_part

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.data(),
    dim=st.integers(1, 12),
    keys=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=20),
    dialect=st.sampled_from(["hadoop", "paddle"]),
)
def test_floats_survive_cat_and_text(
    tmp_path: Path, data: st.DataObject, dim: int, keys: list[int], dialect: str
) -> None:
    rows = data.draw(
        st.lists(
            st.lists(finite, min_size=dim, max_size=dim), min_size=len(keys), max_size=len(keys)
        )
    )
    values = np.array(rows, np.float32).view(np.uint8)
    lines = list(format_pairs(np.array(keys, np.uint64), values))
    source = tmp_path / "pairs.txt"
    source.write_text("\n\n".join(lines))
    assert text_to_sequence_file(source, tmp_path / "part", dialect=dialect) == len(keys)
    [(back_keys, back_values)] = read_pairs(tmp_path / "part")
    assert back_keys.tolist() == keys
    np.testing.assert_array_equal(back_values, values)


def test_values_that_are_no_floats_are_shown_in_hexadecimal(tmp_path: Path) -> None:
    write_part(tmp_path / "part", np.array([5], np.uint64), np.array([[1, 2, 255]], np.uint8))
    [(keys, values)] = read_pairs(tmp_path / "part")
    assert list(format_pairs(keys, values)) == ["5:0x0102ff"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2 0.5", "no ':' between key and values"),
        ("-1:0.5 1", "'-1' is no key"),
        ("18446744073709551616:0.5 1", "'18446744073709551616' is no key"),
        ("x:0.5 1", "'x' is no key"),
        (":0.5 1", "'' is no key"),
        ("2:0.5", "1 values, the first line has 2"),
        ("2:0.5 1 2", "3 values, the first line has 2"),
        ("2:0.5 one", "'one' is no number"),
        ("2:0.5 nan", "'nan' is no finite float32"),
        ("2:0.5 1e39", "'1e39' is no finite float32"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, problem: str) -> None:
    source = tmp_path / "pairs.txt"
    source.write_text(f"1:0.25 0.5\n\n{line}\n")
    with pytest.raises(BuildError) as caught:
        text_to_sequence_file(source, tmp_path / "part")
    assert f"{source}:3: {problem}" in str(caught.value)
    assert tree(tmp_path) == ["pairs.txt"]


def test_text_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("\n \n")
    with pytest.raises(BuildError, match="no pairs"):
        text_to_sequence_file(tmp_path / "pairs.txt", tmp_path / "part")
    with pytest.raises(BuildError, match="no such file"):
        text_to_sequence_file(tmp_path / "nothing", tmp_path / "part")
    assert tree(tmp_path) == ["pairs.txt"]
