"""What whoever builds on a terminal sees meanwhile."""

from __future__ import annotations

import re

import pytest

from cube_builder.local_engine import Progress
from cube_builder.progress_bar import build_progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "200")):
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("terminal")
def test_a_terminal_shows_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    with build_progress() as show:
        for done in range(1, 4):
            show(Progress("read", done, 10**9, 1000 * done))
    reading = _last_lines(capsys)[-1]
    assert reading.startswith("read")
    assert "3/1000000000" in reading
    rate = re.search(r"3,000 records, ([\d,]+)/s", reading)
    assert rate is not None
    assert int(rate[1].replace(",", "")) > 0
    left = re.search(r"left (\d+):(\d\d):(\d\d)", reading)
    assert left is not None
    assert any(map(int, left.groups()))


@pytest.mark.usefixtures("terminal")
def test_what_is_written_has_a_bar_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with build_progress() as show:
        show(Progress("read", 500, 500, 10))
        show(Progress("write", 1, 1, 10))
    read, write = _last_lines(capsys)[-2:]
    assert re.match(r"read .* 500/500 +10 records, ", read)
    assert re.match(r"write .* 1/1 +10 records, .* left 0:00:00", write)


def test_nothing_is_shown_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    with build_progress() as show:
        show(Progress("read", 1, 2, 3))
    assert capsys.readouterr().err == ""


def _last_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What stands on the terminal at the end, without what colours it and moves the cursor."""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    return [line.rpartition("\r")[2].strip() for line in plain.splitlines() if line.strip()]
