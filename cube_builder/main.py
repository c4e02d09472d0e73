"""`cube-builder`: passes to shard tables, and what makes and shows passes.

Every command imports what it needs itself: a build is done in less time than all of it takes.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar, cast

import typer

from cube_core import command_line
from cube_core.errors import BuildError, ConfError, ControlError, CubeError
from cube_core.log import configure
from cube_core.versions import Version

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cube_builder.batches import ValueWidth
    from cube_builder.checks import OnDuplicate, OnNonfinite
    from cube_builder.job import BuildJob, BuildReport
    from cube_builder.quantize import Quant
    from cube_core._native import Table

log = logging.getLogger(__name__)
T = TypeVar("T")

# glog's own flags, which flag files of the original carry.
_IGNORED_FLAGS = frozenset({"log_dir", "logtostderr", "minloglevel", "stderrthreshold", "v"})

_BUILD_HELP = """Cuts a pass into shard tables (key % shard_num).

Reads SequenceFiles, Parquet and Arrow files, and shards of the original cube-builder.

Writes <output_path>/<depend_version>_<cur_version>/<dict_name>_part<shard>.table and build.json.

Example:

  cube-builder --dict_name=test_dict --job_mode=base --cur_version=1 --depend_version=1
  --input_path=./pass --output_path=./tables --shard_num=2
"""

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
    no_args_is_help=True,
    help=_BUILD_HELP,
)

Dialect = Annotated[
    str, typer.Option("--dialect", help="hadoop, or paddle: keys and values without lengths.")
]


ValueWidthFlag = Annotated[
    str,
    typer.Option(
        "--value_width", help="fixed: one for all values, others are refused; variable: one each."
    ),
]


@app.callback()
def build_command(
    context: typer.Context,
    dict_name: Annotated[str, typer.Option("--dict_name", help="Name of the dict.")] = "",
    input_path: Annotated[
        str, typer.Option("--input_path", help="An input file or a directory of them; or a URI.")
    ] = "",
    output_path: Annotated[
        str, typer.Option("--output_path", help="Directory of the versions; or a URI.")
    ] = "",
    shard_num: Annotated[int, typer.Option("--shard_num", help="Number of shards.")] = -1,
    cur_version: Annotated[
        str, typer.Option("--cur_version", help="Version to build; the time in seconds if unset.")
    ] = "",
    depend_version: Annotated[
        str, typer.Option("--depend_version", help="Version it stands on; cur_version if unset.")
    ] = "",
    on_duplicate: Annotated[
        str,
        typer.Option("--on_duplicate", help="last: the last record of a key counts; error."),
    ] = "last",
    on_nonfinite: Annotated[
        str, typer.Option("--on_nonfinite", help="error: NaN and infinities are refused; keep.")
    ] = "error",
    engine: Annotated[
        str, typer.Option("--engine", help="local; spark: on a cluster, with URIs as paths.")
    ] = "local",
    spark_master: Annotated[
        str | None,
        typer.Option("--spark_master", help="Such as local[2]; as spark-submit says if unset."),
    ] = None,
    quant: Annotated[
        str,
        typer.Option("--quant", help="none; fp16, int8: smaller tables, served as float32."),
    ] = "none",
    value_width: ValueWidthFlag = "fixed",
    memory_mb: Annotated[
        int | None,
        typer.Option("--memory_mb", help="Bound in MiB; four fifths of the machine's if unset."),
    ] = None,
    job_mode: Annotated[
        str,
        typer.Option("--job_mode", help="base; delta: a patch over the base --depend_version."),
    ] = "base",
    last_version: Annotated[
        str, typer.Option("--last_version", help="Accepted; has no meaning for a base.")
    ] = "0",
    only_build: Annotated[
        bool,
        typer.Option(
            "--only_build/--noonly_build", help="Accepted; shipping is cube-transfer's work."
        ),
    ] = True,
    master_address: Annotated[
        str, typer.Option("--master_address", help="Accepted; has no meaning here.")
    ] = "",
) -> None:
    if context.invoked_subcommand is not None:
        return
    from cube_builder.job import BuildJob

    if job_mode not in ("base", "delta"):
        raise _flag_error("job_mode", f"{job_mode!r}: must be base or delta")
    if job_mode == "delta":
        _given("cur_version", cur_version)
        _given("depend_version", depend_version)
    if not only_build:
        log.warning("--only_build=false: only built; cube-transfer ships what it builds")
    started = time.monotonic()
    job = BuildJob(
        dict_name=_given("dict_name", dict_name),
        input_path=Path(_given("input_path", input_path)),
        output_path=Path(_given("output_path", output_path)),
        shard_num=shard_num,
        version=_version(depend_version, cur_version or str(int(time.time()))),
        on_duplicate=cast("OnDuplicate", on_duplicate),
        on_nonfinite=cast("OnNonfinite", on_nonfinite),
        memory_mb=memory_mb,
        quant=cast("Quant", quant),
        delta=job_mode == "delta",
        value_width=cast("ValueWidth", value_width),
    )
    if engine == "spark":
        report = _build_on_spark(job, input_path, output_path, spark_master)
    elif engine == "local":
        _require_local_paths(input_path, output_path)
        report = _build_here(job)
    else:
        raise _flag_error("engine", f"{engine!r}: must be local or spark")
    elapsed_s = time.monotonic() - started
    if report.quant != "none":
        print(
            f"stored as {report.quant}: elements change by {report.quant_max_error:.3g} at most, "
            f"{report.quant_mean_error:.3g} in the mean"
        )
    deletions = sum(shard.deletion_count for shard in report.shards)
    print(
        f"built {job.directory}: {report.record_count} records of "
        f"{report.value_bytes or 'various'} bytes"
        f"{f' with {deletions} deleted keys' if job.delta else ''} into "
        f"{report.shard_num} tables in {elapsed_s:.2f} s "
        f"({report.record_count / elapsed_s:.0f} records/s)"
    )


@app.command()
def dump(
    input_path: Annotated[
        Path,
        typer.Option("--input_path", help=".pdparams, or one variable in Paddle's binary format."),
    ],
    output_path: Annotated[Path, typer.Option("--output_path", help="Directory of the parts.")],
    entry: Annotated[
        str | None, typer.Option("--entry", help="Entry of the .pdparams; may be its only matrix.")
    ] = None,
    dialect: Dialect = "hadoop",
    rows_per_file: Annotated[
        int, typer.Option("--rows_per_file", help="Rows a part.")
    ] = 10_000_000,
    donefile: Annotated[
        Path | None, typer.Option("--donefile", help="Donefile to announce the pass in.")
    ] = None,
    pass_id: Annotated[str, typer.Option("--id", help="Id of the pass, for the donefile.")] = "",
    dense: Annotated[
        Path | None, typer.Option("--dense", help="Dense model's directory, for the donefile.")
    ] = None,
) -> None:
    """Exports a Paddle embedding as a pass of SequenceFiles; the row's index is the key.

    Example:

      cube-builder dump --input_path=model.pdparams --entry=embedding.weight
      --output_path=passes/10/embedding --donefile=passes/donefile/base.txt --id=10
    """
    from cube_builder.donefile import append_pass
    from cube_builder.paddle_export import export_rows, load_embedding
    from cube_builder.progress_bar import row_progress

    if donefile is None and (pass_id or dense is not None):
        raise _flag_error("donefile", "needed with --id and --dense")
    if donefile is not None:
        _version(pass_id, _given("id", pass_id))
    if dense is not None and not dense.is_dir():
        raise _flag_error("dense", f"{dense} is no directory")
    rows = load_embedding(input_path, entry)
    with row_progress(len(rows)) as on_rows:
        parts = export_rows(
            rows, output_path, dialect=dialect, rows_per_file=rows_per_file, on_rows=on_rows
        )
    if donefile is not None:
        append_pass(donefile, pass_id, output_path, dense)
    print(f"dumped {output_path}: {len(rows)} rows of {rows.shape[1]} floats in {len(parts)} files")


@app.command()
def cat(
    path: Annotated[Path, typer.Argument(help="A SequenceFile, a table, or a directory of them.")],
    limit: Annotated[int, typer.Option("--limit", min=0, help="Pairs to print; 0: all.")] = 0,
    as_hex: Annotated[
        bool, typer.Option("--hex", help="Values as 0x…, as those are that cannot be float32.")
    ] = False,
) -> None:
    """Prints pairs as `key:v1 v2 …`, which `text` reads; `key:` is deleted by a delta.

    Example:

      cube-builder cat tables/1_1/test_dict_part0.table --limit=10
    """
    from cube_builder.pairs import read_pairs
    from cube_builder.text_format import format_pairs

    left = limit or sys.maxsize
    try:
        for keys, values in read_pairs(path):
            for line in islice(format_pairs(keys, values, as_hex=as_hex), left):
                print(line)
            left -= len(keys)
            if left <= 0:
                break
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has seen enough, as `head` does; the interpreter must not flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@app.command()
def text(
    input_path: Annotated[
        Path,
        typer.Option(
            "--input_path", help="Lines `key:v1 v2 …` or `key:0x…`; `key:` deletes, in a delta."
        ),
    ],
    output_path: Annotated[Path, typer.Option("--output_path", help="SequenceFile to write.")],
    dialect: Dialect = "hadoop",
    value_width: ValueWidthFlag = "fixed",
) -> None:
    """Makes a SequenceFile of `key:v1 v2 …` lines, float32 values, or `key:0x…`, bytes.

    Example:

      cube-builder text --input_path=pairs.txt --output_path=pass/part-00000
    """
    from cube_builder.batches import VALUE_WIDTHS
    from cube_builder.text_format import text_to_sequence_file

    if dialect not in ("hadoop", "paddle"):
        raise _flag_error("dialect", f"{dialect!r}: must be hadoop or paddle")
    if value_width not in VALUE_WIDTHS:
        raise _flag_error("value_width", f"{value_width!r}: must be fixed or variable")
    count = text_to_sequence_file(input_path, output_path, dialect=dialect, value_width=value_width)
    print(f"wrote {output_path}: {count} pairs")


@app.command("verify")
def verify_command(
    paths: Annotated[list[Path], typer.Argument(help="Tables, or directories of them.")],
) -> None:
    """Checks structure and checksums of tables, and build.json beside them.

    Exit code 2, and a line on stderr for each, when any is damaged.

    Example:

      cube-builder verify tables/1_1
    """
    from cube_builder.tables import table_files, verify

    failed = 0
    for path in [file for given in paths for file in table_files(given)]:
        try:
            table = verify(path)
        except (CubeError, OSError) as error:
            failed += 1
            print(f"damaged {path}: {error}", file=sys.stderr)
        else:
            print(
                f"ok {path}: {table.dict_name} {table.version}, shard {table.shard} of "
                f"{table.shard_num}, {table.key_count} keys of {_widths(table)} bytes"
                f"{_over(table)}"
            )
    if failed:
        raise BuildError(f"{failed} of the tables are damaged; build them again or ship them anew")


@app.command("diff")
def diff_command(
    old: Annotated[Path, typer.Argument(help="Directory of a version, or a table.")],
    new: Annotated[Path, typer.Argument(help="The one to compare it with.")],
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Keys to print of each kind; 0: none.")
    ] = 10,
) -> None:
    """Tells which keys two versions do not share, and which have another value.

    Deltas are laid over the other version; two of them are compared change by change.

    Example:

      cube-builder diff tables/1_1 tables/2_2 --limit=5
    """
    from cube_builder.tables import diff

    left = {"added": limit, "removed": limit, "changed": limit}

    def show(kind: str, keys: NDArray[np.uint64]) -> None:
        for key in keys[: left[kind]].tolist():
            print(f"{kind} {key}")
        left[kind] -= min(left[kind], len(keys))

    found = diff(old, new, show)
    print(
        f"{found.added} added, {found.removed} removed, {found.changed} changed, "
        f"{found.equal} equal"
    )


def prepare() -> None:
    """To be called before anything imports numpy, whose threads for linear algebra, of which there
    is none here, would spin while they start."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main() -> NoReturn:
    configure("cube-builder")
    # As an exception it passes through every block that removes what is half done.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    prepare()
    command_line.run(app, ignored_flags=_IGNORED_FLAGS)


def _build_here(job: BuildJob) -> BuildReport:
    from cube_builder.local_engine import build

    if not sys.stderr.isatty():
        return build(job)
    from cube_builder.progress_bar import build_progress

    with build_progress() as on_progress:
        return build(job, on_progress)


def _build_on_spark(
    job: BuildJob, input_path: str, output_path: str, master: str | None
) -> BuildReport:
    from cube_builder.spark_engine import build_on_spark
    from cube_builder.spark_session import spark_session

    with spark_session(master) as session:
        return build_on_spark(job, input_path, output_path, session)


def _widths(table: Table) -> str:
    return str(table.value_bytes) if table.value_bytes else f"up to {table.value_bytes_max}"


def _over(table: Table) -> str:
    if table.kind == "whole":
        return ""
    return f", {table.deletion_count} of them deleted, over {table.base_version}"


def _flag_error(flag: str, problem: str) -> ConfError:
    return ConfError("command line", f"--{flag}", problem)


def _require_local_paths(*paths: str) -> None:
    for path in paths:
        if "://" in path:
            raise _flag_error("engine", f"local reads and writes no {path}; use --engine=spark")


def _given(flag: str, value: T | None) -> T:
    if not value:
        raise _flag_error(flag, "is needed; see --help")
    return value


def _version(depend_version: str, cur_version: str) -> Version:
    try:
        return Version.parse(f"{depend_version or cur_version}_{cur_version}")
    except ControlError as error:
        raise _flag_error("cur_version", str(error)) from error


if __name__ == "__main__":
    main()
