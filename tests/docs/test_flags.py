"""Every flag of every command is in the documentation, and no other."""

from __future__ import annotations

import re

import pytest

from docs_site.commands import Flag, commands, ignored_flags, programs
from docs_site.pages.flags import flags_page
from tests.docs.pages import names, page, tables

# Said for all commands at once, and by typer.
_EVERYWHERE = {"--help", "--flagfile"}


def flags_of(program: str) -> dict[str, list[Flag]]:
    """Flags of a program and its subcommands by each of their names."""
    found: dict[str, list[Flag]] = {}
    for command in commands():
        if command.name.split()[0] == program:
            for flag in command.flags:
                for name in flag.names:
                    found.setdefault(name, []).append(flag)
    return found


def rows_of_flags(program: str) -> list[tuple[list[str], list[str], list[str]]]:
    """Rows of the tables of flags on the page of a program: flags, cells, heads."""
    found = []
    for head, *rows in tables(page(f"reference/{program}.md")):
        if head[0].startswith("flag"):
            found += [(names(row[0]), row, head) for row in rows]
    assert found
    return found


@pytest.mark.parametrize("program", sorted(programs()))
def test_the_page_of_a_command_has_every_flag(program: str) -> None:
    text = page(f"reference/{program}.md")
    missing = {
        flag.names[0]
        for flags in flags_of(program).values()
        for flag in flags
        if not any(re.search(rf"(?<![\w-]){re.escape(name)}\b", text) for name in flag.names)
    }
    assert missing <= _EVERYWHERE


@pytest.mark.parametrize("program", sorted(programs()))
def test_no_flag_is_made_up(program: str) -> None:
    known = set(flags_of(program)) | {f"--{name}" for name in ignored_flags(program)}
    for flags, _, _ in rows_of_flags(program):
        assert set(flags) <= known | _EVERYWHERE


@pytest.mark.parametrize("program", sorted(programs()))
def test_defaults_are_those_of_the_code(program: str) -> None:
    known = flags_of(program)
    for flags, cells, head in rows_of_flags(program):
        if "default" not in head:
            continue
        told = cells[head.index("default")].strip("`").replace(",", "")
        # Subcommands may have a flag of the same name.
        defaults = {flag.default for flag in known.get(flags[0], []) if flag.default}
        if defaults and re.fullmatch(r"-?\d+(\.\d+)?|true|false", told):
            assert _value(told) in {_value(each) for each in defaults}, flags


def _value(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


def test_the_page_of_all_flags_is_complete() -> None:
    text = flags_page()
    for command in commands():
        for flag in command.flags:
            assert flag.names == ("--help",) or f"`{flag.names[0]}`" in text
    assert "| `--port` | integer, 0 to 65535 | `8001` |" in text.replace("65,535", "65535")
