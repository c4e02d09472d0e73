"""Names of versions: read as written, and never a way out of a directory."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core.errors import ControlError
from cube_core.versions import Version

_IDS = st.from_regex(r"[0-9A-Za-z.\-]{1,64}", fullmatch=True).filter(lambda i: i not in (".", ".."))


@given(base=_IDS, version=_IDS)
def test_reads_what_it_writes(base: str, version: str) -> None:
    name = Version(base, version)
    assert Version.parse(str(name)) == name
    assert Version.parse(f"/{name}") == name
    assert name.is_base == (base == version)


def test_a_single_id_is_a_base() -> None:
    assert Version.parse("/10") == Version("10", "10")
    assert str(Version.parse("10")) == "10_10"
    assert not Version.parse("10_11").is_base


@pytest.mark.parametrize(
    "text",
    ["", "/", "_", "1_", "_1", "1_2_3", "..", ".._..", "1_..", "a/b", "//1", "1\n", "ä", "1" * 65],
)
def test_refuses_what_is_no_version(text: str) -> None:
    with pytest.raises(ControlError) as raised:
        Version.parse(text)
    assert repr(text) in str(raised.value)


@given(st.text())
def test_any_text_stays_in_its_directory(text: str) -> None:
    try:
        version = Version.parse(text)
    except ControlError:
        return
    assert PurePosixPath("data", str(version)).parts == ("data", str(version))
    assert str(version) not in (".", "..")
