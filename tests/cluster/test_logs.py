"""The ends of logs, and what is added to them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_cluster import logs


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.text("ab é", max_size=9), max_size=30), count=st.integers(0, 40))
def test_the_last_lines_are_those_of_the_whole_file(
    tmp_path: Path, lines: list[str], count: int
) -> None:
    path = tmp_path / "log"
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_BLOCK_BYTES", 7)
        found = [line for _, line in logs.follow({"x": path}, count, forever=False)]
    assert found == lines[len(lines) - min(count, len(lines)) :]


def test_what_is_added_is_followed_also_after_the_file_began_anew(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("one\ntwo\nthr")
    found = logs.follow({"a": first, "b": second}, 1, forever=True)
    assert next(found) == ("a", "two")
    with first.open("a") as log:
        log.write("ee\n")
    assert next(found) == ("a", "three")
    second.write_text("1\n2\n")
    assert list(itertools.islice(found, 2)) == [("b", "1"), ("b", "2")]
    first.write_text("new\n")
    assert next(found) == ("a", "new")


def test_a_file_that_is_put_aside_is_read_to_its_end_and_then_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("one\n")
    found = logs.follow({"a": path}, 1, forever=True)
    assert next(found) == ("a", "one")
    with path.open("a") as log:
        log.write("two\n")
        path.replace(tmp_path / "a.1")
        # Longer than what was read of the file before: its size tells nothing.
        path.write_text("three, of the new file\nfour\n")
    assert list(itertools.islice(found, 3)) == [
        ("a", "two"),
        ("a", "three, of the new file"),
        ("a", "four"),
    ]
