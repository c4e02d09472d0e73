"""Command lines in gflags' spelling, on top of typer.

The original's tools are gflags programs: `--flag=value`, `-flag=value`, `--flag=true`, `--noflag`
and `--flagfile=FILE` all work there, so they work here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cube_core import log as logs
from cube_core.access import OPERATE_TOKEN_VARIABLE, READ_TOKEN_VARIABLE
from cube_core.errors import ConfError, CubeError

log = logging.getLogger(__name__)

# One identity a role: what its ports show, and what it shows where it connects.
TlsCertFile = Annotated[
    str,
    typer.Option("--tls_cert_file", help="Certificate with its chain, PEM: ports speak TLS only"),
]
TlsKeyFile = Annotated[str, typer.Option("--tls_key_file", help="Its private key, PEM")]
TlsCaFile = Annotated[
    str,
    typer.Option(
        "--tls_ca_file",
        help="Who signs the certificates of peers, PEM: clients must show one (mutual TLS)",
    ),
]

LogFormat = Annotated[
    logs.LogFormat | None,
    typer.Option(
        "--log_format",
        help="Lines for people, or an object of JSON each; "
        f"else the variable {logs.FORMAT_VARIABLE}.  [default: human]",
    ),
]

SlowRequestMs = Annotated[
    int,
    typer.Option(
        "--slow_request_ms", min=0, help="Requests that take longer are logged; 0: none are"
    ),
]

USAGE_EXIT_CODE = 2
_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})

ReadTokenFile = Annotated[
    str,
    typer.Option(
        "--read_token_file",
        help=f"File of the token for what only looks; else the variable {READ_TOKEN_VARIABLE}",
    ),
]
OperateTokenFile = Annotated[
    str,
    typer.Option(
        "--operate_token_file",
        help=f"File of the token for what changes; else the variable {OPERATE_TOKEN_VARIABLE}. "
        "Without one, such commands are taken from this machine only",
    ),
]


def run(
    app: typer.Typer,
    argv: Sequence[str] | None = None,
    *,
    ignored_flags: Collection[str] = (),
) -> NoReturn:
    """Runs a typer app and exits: 0, the command's own code, or 2 with one `error:` line on stderr
    for wrong usage and for every `CubeError`.

    Args:
        argv: arguments without the program's name; those of the process when None.
        ignored_flags: names of flags that files of the original carry for its own runtime; they
            are dropped with a warning.
    """
    try:
        arguments = _gflags_spelling(app, sys.argv[1:] if argv is None else argv, ignored_flags)
        app(args=arguments)
    except CubeError as error:
        _end(str(error))
    except OSError as error:
        _end(f"{error.filename or ''}: {error.strerror or error}")
    sys.exit(0)


def _end(problem: str) -> NoReturn:
    if logs.is_json():
        log.critical("%s", problem)
    else:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(USAGE_EXIT_CODE)


def _gflags_spelling(
    app: typer.Typer, argv: Sequence[str], ignored_flags: Collection[str]
) -> list[str]:
    options = dict(_options(typer.main.get_command(app)))
    warn = logs.warn_once_configured if "log_format" in options else log.warning
    arguments: list[str] = []
    is_after_switch = False
    for argument, origin in _expand_flagfiles(argv):
        name, equals, value = argument.lstrip("-").partition("=")
        is_flag = argument.startswith("--") or (argument.startswith("-") and name in options)
        # `-switch true` is how the original's tools are called; gflags passes over the word.
        passes_over, is_after_switch = is_after_switch, is_flag and options.get(name, False)
        if passes_over and argument == "true":
            continue
        if equals:
            is_after_switch = False
        if not is_flag or not name:
            arguments.append(argument)
        elif name in ignored_flags or (name[:2] == "no" and name[2:] in ignored_flags):
            warn(f"{origin}: --{name} has no meaning here and is ignored")
        elif name not in options:
            if origin != _COMMAND_LINE:
                raise ConfError(origin, f"--{name}", "no such flag; see --help for those there are")
            arguments.append(argument)
        elif options[name] and equals:
            arguments.append(_boolean_flag(name, value, origin))
        else:
            arguments.append(f"--{name}{equals}{value}")
    return arguments


_COMMAND_LINE = "command line"


def _expand_flagfiles(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yields each argument with where it stands; a flagfile's lines take the flag's place."""
    pending = iter(argv)
    for argument in pending:
        if argument in ("--flagfile", "-flagfile"):
            yield from _flagfile_lines(next(pending, ""))
        elif argument.startswith(("--flagfile=", "-flagfile=")):
            yield from _flagfile_lines(argument.partition("=")[2])
        else:
            yield argument, _COMMAND_LINE


def _flagfile_lines(path: str) -> Iterator[tuple[str, str]]:
    if not path:
        raise ConfError(_COMMAND_LINE, "--flagfile", "names no file")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(path, "", f"cannot read the flagfile: {error}") from error
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if not line.startswith("-"):
            raise ConfError(f"{path}:{number}", "", f"{line!r} is no flag; write --name=value")
        yield line, f"{path}:{number}"


def _options(command: Any) -> Iterator[tuple[str, bool]]:
    """Yields the name of every long option of a command and its subcommands, and whether it is a
    boolean flag."""
    for parameter in command.params:
        for spelling in (*parameter.opts, *parameter.secondary_opts):
            if spelling.startswith("--"):
                yield spelling[2:], bool(getattr(parameter, "is_flag", False))
    for subcommand in getattr(command, "commands", {}).values():
        yield from _options(subcommand)


def _boolean_flag(name: str, value: str, origin: str) -> str:
    if value.lower() in _TRUE:
        return f"--{name}"
    if value.lower() in _FALSE:
        return f"--no{name}"
    raise ConfError(origin, f"--{name}", f"{value!r} is neither true nor false")
