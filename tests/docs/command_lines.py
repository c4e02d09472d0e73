"""Command lines of help texts and pages, read as the commands would read them."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator
from typing import Any

from cube_core import command_line
from docs_site.commands import ignored_flags, program, programs

# What ends a command in a shell, and a place that a reader fills in.
_END = re.compile(r"\s(#|\||>|&&|2>)|;|\s&$")


def lines_of(text: str) -> Iterator[str]:
    """The calls of our programs in a piece of shell."""
    joined = re.sub(r"\\\n\s*|\n\s*(?=--)", " ", text)
    starts = "|".join(re.escape(name) for name in sorted(programs(), key=len, reverse=True))
    for line in joined.splitlines():
        for part in line.split("&&"):
            match = re.match(rf"\s*(?:Example: |nohup |\S*/)?((?:{starts})(?:\s.*)?)$", part)
            if match is not None:
                yield _END.split(match[1] + " ", maxsplit=1)[0].strip()


def check(line: str) -> None:
    """Raises what the command would say of its flags; nothing is run."""
    name, *arguments = shlex.split(line)
    app = importlib.import_module(programs()[name]).app
    spelled = command_line._gflags_spelling(app, arguments, ignored_flags(name))
    _check(program(name), name, [each for each in spelled if each != "--help"])


def _check(command: Any, name: str, arguments: list[str]) -> None:
    with command.make_context(name, list(arguments)) as context:
        # The name of a subcommand is kept apart.
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if hasattr(command, "commands") and rest:
            inner, subcommand, left = command.resolve_command(context, rest)
            assert subcommand is not None
            _check(subcommand, str(inner), left)
