"""Lines of a donefile: each is a pass or a named error, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_transfer.donefile import donefile_address, parse_donefile

ADDRESS = "/train/donefile/base.txt"


def _line(**fields: object) -> bytes:
    return json.dumps({"id": "1", "key": "1", "input": "/pass", **fields}).encode() + b"\n"


def test_a_line_as_the_original_has_it() -> None:
    line = b'{"id":"1541743615","key":"1541743615","input":"/train/pass"}\n'
    reading = parse_donefile(line, ADDRESS)
    (entry,) = reading.entries
    assert (entry.id, entry.key, str(entry.version)) == (
        "1541743615",
        "1541743615",
        "1541743615_1541743615",
    )
    assert (entry.input, entry.dense) == ("/train/pass", "")
    assert reading.errors == ()
    assert reading.incomplete_line == ""


def test_unknown_fields_are_kept_and_numbers_are_ids() -> None:
    (entry,) = parse_donefile(_line(id=7, key=7, auc=0.79, tags=["a"]), ADDRESS).entries
    assert entry.id == "7"
    assert entry.fields["auc"] == 0.79
    assert entry.fields["tags"] == ["a"]


@pytest.mark.parametrize(
    ("address", "location", "resolved"),
    [
        (ADDRESS, "../5/embedding", "/train/donefile/../5/embedding"),
        (ADDRESS, "/elsewhere/5", "/elsewhere/5"),
        (ADDRESS, "http://host/5", "http://host/5"),
        ("http://host/d/base.txt", "../5/embedding", "http://host/5/embedding"),
        ("http://host/d/base.txt", "/shared/5", "/shared/5"),
    ],
)
def test_locations_are_relative_to_the_donefile(address: str, location: str, resolved: str) -> None:
    (entry,) = parse_donefile(_line(input=location, dense=location), address).entries
    assert (entry.input, entry.dense) == (resolved, resolved)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{\n", "base.txt:2: Invalid JSON"),
        (b"[]\n", "base.txt:2: "),
        (b"\xff\xfe\n", "base.txt:2: "),
        (b'{"id":"2","key":"2"}\n', "base.txt:2: input: Field required"),
        (_line(id=""), "base.txt:2: id: "),
        (_line(id="../etc"), "base.txt:2: id '../etc' is not"),
        (_line(id="2_3"), "base.txt:2: id '2_3' is not"),
        (_line(id="2", input=""), "base.txt:2: input: "),
        (_line(id="2", input=["a"]), "base.txt:2: input: "),
        (_line(id="2", version="1_2"), "base.txt:2: version '1_2' of a base must be"),
        (_line(id="6", note="x" * 20_000), "base.txt:2: longer than LINE_BYTES_MAX = 16384"),
        (_line(id="5"), "base.txt:2: id 5 is already in line 1"),
        (_line(id="4"), "base.txt:2: out of order: id 4 is below id 5 of line 1"),
    ],
)
def test_a_bad_line_is_named_and_hides_no_other(line: bytes, words: str) -> None:
    reading = parse_donefile(_line(id="5") + line + _line(id="6"), ADDRESS)
    assert [entry.id for entry in reading.entries] == ["5", "6"]
    (error,) = reading.errors
    assert words in str(error)
    assert str(error).startswith(ADDRESS)


def test_a_last_line_without_newline_is_not_complete_yet() -> None:
    whole = _line(id="5")
    for length in range(1, len(whole)):
        reading = parse_donefile(_line(id="4") + whole[:length], ADDRESS)
        assert [entry.id for entry in reading.entries] == ["4"]
        assert reading.errors == ()
        assert reading.incomplete_line == f"{ADDRESS}:2"


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    reading = parse_donefile(data, ADDRESS)
    lines = [line for line in data.split(b"\n")[:-1] if line.strip()]
    assert len(reading.entries) + len(reading.errors) == len(lines)


@given(st.lists(st.tuples(st.integers(0, 10**12), st.booleans()), max_size=20))
def test_good_lines_between_bad_ones(lines: list[tuple[int, bool]]) -> None:
    data = b"".join(_line(id=str(i)) if good else b'{"id":\n' for i, good in lines)
    reading = parse_donefile(data, ADDRESS)
    expected: list[int] = []
    for number, good in lines:
        if good and (not expected or number > expected[-1]):
            expected.append(number)
    assert [int(entry.id) for entry in reading.entries] == expected
    assert len(reading.errors) == len(lines) - len(expected)


def test_the_address_is_the_file_or_its_directory(tmp_path: Path) -> None:
    assert donefile_address(str(tmp_path)) == str(tmp_path / "base.txt")
    assert donefile_address("/not/there/yet") == "/not/there/yet/base.txt"
    assert donefile_address("/not/there/yet/done.txt") == "/not/there/yet/done.txt"
    (tmp_path / "listing").write_text("")
    assert donefile_address(str(tmp_path / "listing")) == str(tmp_path / "listing")
    assert donefile_address("http://host/donefile/") == "http://host/donefile/base.txt"
    assert donefile_address("http://host:80") == "http://host:80/base.txt"
    assert donefile_address("http://host/d/base.txt") == "http://host/d/base.txt"
