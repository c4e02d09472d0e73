"""Every flag of every command."""

from __future__ import annotations

from docs_site.commands import Command, commands, ignored_flags, programs
from docs_site.pages.markdown import code, plain, table

_HEAD = """# Flags

Every flag of every command, as `--help` has it; this page is made of the code. What they do
together is told on the page of each command.

Flags are spelled as gflags does: `--flag=value`, `--flag value`, `-flag=value`; a switch as
`--flag`, `--flag=true` or `--noflag`. `--flagfile=FILE` takes further ones from a file, one a line;
lines that begin with `#` are comments. Of a flag that is given twice the last one counts.
"""


def flags_page() -> str:
    parts = [_HEAD]
    for command in commands():
        parts.append(_section(command))
        if command.name in programs() and (ignored := ignored_flags(command.name)):
            names = ", ".join(code(f"--{name}") for name in ignored)
            parts.append(f"Taken from files of the original without effect: {names}.\n")
    return "\n".join(parts)


def _section(command: Command) -> str:
    page = command.name.split()[0]
    level = "##" if " " not in command.name else "###"
    head = f"{level} {command.name}\n\n"
    if level == "##":
        head += f"[What it does]({page}.md)\n\n"
    rows = [
        (
            ", ".join(code(name) for name in flag.names),
            plain(flag.values),
            flag.default if flag.default == "needed" else code(flag.default),
            plain(flag.help),
        )
        for flag in command.flags
        if flag.names != ("--help",)
    ]
    if not rows:
        return head + "No flags.\n"
    return head + table(("flag", "takes", "default", ""), rows)
