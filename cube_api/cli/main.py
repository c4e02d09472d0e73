"""`cube-cli`: the original's tool, with `bench` and `status` beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from cube_api.cli.dicts import dict_of
from cube_api.cli.key_batches import Distribution, draw_batches
from cube_api.cli.key_file import read_keys
from cube_api.cli.tally import FIGURES_HELP
from cube_core import command_line, log
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.errors import ConfError

if TYPE_CHECKING:
    from cube_api.cli.status import ReplicaStatus

# Flags of glog and brpc that flag files of the original may carry.
_IGNORED_FLAGS = frozenset(
    {"log_dir", "logtostderr", "minloglevel", "stderrthreshold", "v", "bthread_concurrency"}
)
_FAILED_EXIT_CODE = 1
_FIGURES = "The figures:\n\n" + FIGURES_HELP.replace("\n", "\n\n")

_HELP = f"""Seeks the keys of a file, and says how long it took.

Every thread asks for all of the keys, --batch at a time. Exit code 1 when a seek failed.

Example:

  cube-cli --config_file=conf/cube.conf --keys=keys.txt --dict=ctr_embedding --print_output

Flags of `bench` and `status` go after their names.

The original's lines come first (seek cost of each thread and of all, total_request, speed).
{_FIGURES}
"""

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, invoke_without_command=True, help=_HELP
)

ConfigFile = Annotated[Path, typer.Option("--config_file", help="The cube.conf.")]
DictName = Annotated[str, typer.Option("--dict", help="The dict; cube.conf's only one if unset.")]
Batch = Annotated[int, typer.Option("--batch", min=1, help="Keys of one seek.")]
TimeoutMs = Annotated[
    int | None, typer.Option("--timeout", min=1, help="Of a seek, in ms; cube.conf's if unset.")
]
Retry = Annotated[
    int | None, typer.Option("--retry", min=0, help="Of a shard; cube.conf's if unset.")
]
_CUBE_CONF = Path("./cube.conf")


@app.callback()
def seek_keys(
    context: typer.Context,
    config_file: ConfigFile = _CUBE_CONF,
    keys: Annotated[
        Path, typer.Option("--keys", help="File of keys, one decimal number a line.")
    ] = Path("keys"),
    dict_name: DictName = "",
    batch: Batch = 500,
    thread_num: Annotated[int, typer.Option("--thread_num", min=1, max=1024)] = 1,
    timeout_ms: TimeoutMs = None,
    retry: Retry = None,
    print_output: Annotated[
        bool,
        typer.Option(
            "--print_output/--noprint_output",
            help="Print every row, once: key:<key> value:<hexadecimal>; no value: missing.",
        ),
    ] = False,
    flagfile: Annotated[str, typer.Option("--flagfile", help="A file of flags, one a line.")] = "",
) -> None:
    log.configure("cube-cli")
    if context.invoked_subcommand is not None:
        _refuse_flags_before(context)
        return
    from cube_api.cli.replay import Replay, original_lines

    conf = dict_of(config_file, dict_name, timeout_ms=timeout_ms, retry=retry)
    threads, together = Replay(conf, read_keys(keys), batch, thread_num, print_output).run()
    for line in (*original_lines(threads, together), *together.lines()):
        print(line)
    if together.failed:
        raise typer.Exit(_FAILED_EXIT_CODE)


def _refuse_flags_before(context: typer.Context) -> None:
    """Flags before a subcommand's name would have no effect on it."""
    for flag in context.command.params:
        source = context.get_parameter_source(flag.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise ConfError(
                "command line", flag.opts[0], f"write flags after {context.invoked_subcommand!r}"
            )


@app.command(
    help=f"""Puts load on the servers of a dict and measures it.

Closed loop: --concurrency threads, each sends its next seek when the last one is answered.

Open loop, with --rate: seeks are sent at fixed times whether or not earlier ones are answered, and
latencies count from those times, so that a stall is charged to every seek it held up.
--concurrency bounds what is under way; a rate that it cannot hold shows in the latencies.

Exit code 1 when a seek failed.

Example:

  cube-cli bench --config_file=conf/cube.conf --batch=26 --rate=2000 --distribution=zipf

{_FIGURES}
"""
)
def bench(
    config_file: ConfigFile = _CUBE_CONF,
    dict_name: DictName = "",
    batch: Batch = 500,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=1024, help="Seeks under way at a time.")
    ] = 4,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Seeks a second; makes it open loop.")
    ] = None,
    duration_s: Annotated[float, typer.Option("--duration_s", min=0.01)] = 10.0,
    distribution: Annotated[Distribution, typer.Option("--distribution")] = Distribution.UNIFORM,
    key_space: Annotated[
        int, typer.Option("--key_space", min=1, max=1 << 52, help="Keys are below it.")
    ] = 1_000_000,
    zipf_exponent: Annotated[
        float, typer.Option("--zipf_exponent", min=0.01, max=10, help="Of --distribution=zipf.")
    ] = 0.99,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the keys.")] = 1,
    timeout_ms: TimeoutMs = None,
    retry: Retry = None,
) -> None:
    from cube_api.cli.bench import Bench

    conf = dict_of(config_file, dict_name, timeout_ms=timeout_ms, retry=retry)
    batches = draw_batches(
        distribution, key_space=key_space, batch=batch, zipf_exponent=zipf_exponent, seed=seed
    )
    figures = Bench(conf, batches, concurrency, rate, duration_s).run()
    loop = "closed loop" if rate is None else f"open loop at {rate:g} a second"
    print(f"{loop}, {concurrency} threads, {batch} keys a request, {distribution.value} keys")
    for line in figures.lines():
        print(line)
    if figures.failed:
        raise typer.Exit(_FAILED_EXIT_CODE)


@app.command()
def status(
    config_file: ConfigFile = _CUBE_CONF,
    dict_name: Annotated[str, typer.Option("--dict", help="One dict; all of them if unset.")] = "",
    interval_s: Annotated[
        float, typer.Option("--interval_s", min=0.01, help="Time over which requests are counted.")
    ] = 1.0,
    timeout_s: Annotated[
        float, typer.Option("--timeout_s", min=0.01, help="Of each question to a server.")
    ] = 2.0,
) -> None:
    """Shows every replica of every shard: version, keys, memory, requests a second of its server.

    Exit code 1 when one cannot be reached or does not serve its shard.

    Example:

      cube-cli status --config_file=conf/cube.conf
    """
    from cube_api.cli.status import fleet_status

    if dict_name:
        dicts = [dict_of(config_file, dict_name)]
    else:
        dicts = list(read_cube_conf(config_file).values())
    replicas = fleet_status(dicts, interval_s=interval_s, timeout_s=timeout_s)
    _print_table(replicas)
    if any(replica.problem for replica in replicas):
        raise typer.Exit(_FAILED_EXIT_CODE)


_PIPED_WIDTH = 200


def _print_table(replicas: list[ReplicaStatus]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH  # for programs: nothing is cut off
    table = Table()
    for column in ("dict", "shard", "server", "version"):
        table.add_column(column, no_wrap=True)
    for column in ("keys", "memory MiB", "requests/s"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state")
    for each in replicas:
        served = (
            f"{each.keys:,}",
            f"{each.memory_bytes / 2**20:,.2f}",
            f"{each.requests_per_s:,.1f}",
        )
        table.add_row(
            escape(each.dict_name),
            str(each.shard),
            str(each.endpoint),
            escape(each.version) or "-",
            *(("-", "-", "-") if each.problem else served),
            f"[red]{escape(each.problem)}[/]" if each.problem else "[green]serving[/]",
        )
    console.print(table)


def main() -> NoReturn:
    """Entry point of the console script."""
    command_line.run(app, ignored_flags=_IGNORED_FLAGS)


if __name__ == "__main__":
    main()
