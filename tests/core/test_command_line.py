"""gflags' spellings on a typer app, and errors as one line and exit code 2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import pytest
import typer

from cube_core.command_line import run
from cube_core.errors import ConfError


class Program:
    """A typer app with flags of every kind; keeps what it was called with."""

    def __init__(self) -> None:
        self.seen: tuple[int, bool, str, list[str]] | None = None
        self.app = typer.Typer(add_completion=False)
        self.app.command()(self.command)

    def command(
        self,
        files: Annotated[list[str] | None, typer.Argument()] = None,
        port: Annotated[int, typer.Option("--port", min=0, max=65535)] = 8000,
        in_mem: Annotated[bool, typer.Option("--in_mem/--noin_mem")] = True,
        log_dir: Annotated[str, typer.Option("--log_dir")] = "",
    ) -> None:
        """Example: program --port=1"""
        if log_dir == "refuse":
            raise ConfError("some.conf", "field", "is wrong")
        if log_dir == "missing":
            Path(log_dir, "none").read_text()
        self.seen = (port, in_mem, log_dir, files or [])

    def exit_code(self, argv: Sequence[str], ignored: Sequence[str] = ()) -> int:
        with pytest.raises(SystemExit) as raised:
            run(self.app, argv, ignored_flags=ignored)
        return raised.value.code if isinstance(raised.value.code, int) else 0

    def flags(self, *argv: str) -> tuple[int, bool, str, list[str]]:
        assert self.exit_code(argv) == 0
        assert self.seen is not None
        return self.seen


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], (8000, True, "", [])),
        (["--port=1"], (1, True, "", [])),
        (["-port=1"], (1, True, "", [])),
        (["--port", "1"], (1, True, "", [])),
        (["-port", "1"], (1, True, "", [])),
        (["--in_mem=false"], (8000, False, "", [])),
        (["--in_mem=0"], (8000, False, "", [])),
        (["--noin_mem"], (8000, False, "", [])),
        (["-noin_mem"], (8000, False, "", [])),
        (["--noin_mem", "--in_mem=True"], (8000, True, "", [])),
        (["--log_dir=a=b"], (8000, True, "a=b", [])),
        (["--log_dir="], (8000, True, "", [])),
        (["a", "--port=1", "b"], (1, True, "", ["a", "b"])),
    ],
)
def test_spellings_of_gflags(argv: list[str], expected: tuple[int, bool, str, list[str]]) -> None:
    assert Program().flags(*argv) == expected


@pytest.mark.parametrize("spelling", ["--flagfile={}", "-flagfile={}"])
def test_a_flagfile_takes_its_place_in_the_line(tmp_path: Path, spelling: str) -> None:
    flagfile = tmp_path / "gflags.conf"
    flagfile.write_text("# comment\n\n--port=7\n  -in_mem=false  \n--log_dir=./log/\n")
    argument = spelling.format(flagfile)
    assert Program().flags(argument) == (7, False, "./log/", [])
    assert Program().flags(argument, "--port=8") == (8, False, "./log/", [])
    assert Program().flags("--port=8", "--flagfile", str(flagfile))[0] == 7


def test_ignored_flags_are_dropped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flagfile = tmp_path / "gflags.conf"
    flagfile.write_text("--port=7\n--bthread_concurrency=4\n")
    program = Program()
    with caplog.at_level(logging.WARNING):
        code = program.exit_code(
            [f"--flagfile={flagfile}", "--max_body=1"], ["bthread_concurrency", "max_body"]
        )
    assert code == 0
    assert program.seen is not None
    assert program.seen[0] == 7
    assert f"{flagfile}:2: --bthread_concurrency" in caplog.text
    assert "command line: --max_body" in caplog.text


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--prot=7", ":2: --prot: no such flag"),
        ("port=7", ":2: 'port=7' is no flag"),
        ("--in_mem=perhaps", ":2: --in_mem: 'perhaps' is neither true nor false"),
    ],
)
def test_a_bad_line_of_a_flagfile_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, problem: str
) -> None:
    flagfile = tmp_path / "gflags.conf"
    flagfile.write_text(f"\n{line}\n")
    assert Program().exit_code([f"--flagfile={flagfile}"]) == 2
    assert f"error: {flagfile}{problem}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "problem"),
    [
        (["--prot=7"], "No such option: --prot"),
        (["--port=seven"], "Invalid value for '--port'"),
        (["--port=65536"], "65535"),
        (["--in_mem=perhaps"], "error: command line: --in_mem: 'perhaps' is neither"),
        (["--flagfile=none.conf"], "error: none.conf: cannot read the flagfile"),
        (["--flagfile"], "error: command line: --flagfile: names no file"),
        (["--log_dir=refuse"], "error: some.conf: field: is wrong"),
        (["--log_dir=missing"], "error: missing/none: No such file or directory"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(
    capsys: pytest.CaptureFixture[str], argv: list[str], problem: str
) -> None:
    assert Program().exit_code(argv) == 2
    # typer frames and wraps its own messages.
    error = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert problem in error


def test_help_exits_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert Program().exit_code(["--help"]) == 0
    assert "Example: program --port=1" in capsys.readouterr().out
