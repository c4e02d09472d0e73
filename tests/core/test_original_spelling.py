"""Command lines as the original's scripts have them."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer

from cube_core import command_line


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["-print_output", "true", "-batch", "1"], (True, 1)),
        (["-print_output", "-batch=2"], (True, 2)),
        (["--noprint_output", "--batch", "3"], (False, 3)),
        (["--noverbose", "--enable_x=false", "--enable_x", "-batch=4"], (False, 4)),
    ],
)
def test_switches(
    arguments: list[str], seen: tuple[bool, int], capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def show(
        batch: Annotated[int, typer.Option("--batch")] = 0,
        print_output: Annotated[bool, typer.Option("--print_output/--noprint_output")] = False,
    ) -> None:
        print((print_output, batch))

    with pytest.raises(SystemExit) as ended:
        command_line.run(app, arguments, ignored_flags={"enable_x", "verbose"})
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{seen}\n"


def test_a_word_that_is_no_value_of_a_switch_is_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command()
    def show(
        word: Annotated[str, typer.Argument()],
        switch: Annotated[bool, typer.Option("--switch")] = False,
        name: Annotated[str, typer.Option("--name")] = "",
    ) -> None:
        print((word, switch, name))

    with pytest.raises(SystemExit):
        command_line.run(app, ["--switch", "false", "--name", "true"])
    assert capsys.readouterr().out == "('false', True, 'true')\n"
