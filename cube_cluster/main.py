"""`cube`: one deployment on this machine, from one file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cube_cluster.capacity_command import capacity
from cube_core import command_line, log

if TYPE_CHECKING:
    from cube_cluster.deployment import Deployment

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="""Runs a deployment from one file, conf/cluster.yml.

Example:

  cube up --detach

  cube status

  cube logs ctr_serving -f

  cube down
""",
)

_FAILED_EXIT_CODE = 1
_READY_TIMEOUT_S = 60.0

File = Annotated[Path, typer.Option("-f", "--file", help="The cluster.yml.")]
FileLong = Annotated[Path, typer.Option("--file", help="The cluster.yml.")]
RoleName = Annotated[
    str, typer.Argument(metavar="ROLE", help="A role of `cube status`, or all of a kind.")
]
TimeoutS = Annotated[float, typer.Option("--timeout_s", min=0.1, help="For a role to be ready.")]
_FILE = Path("conf/cluster.yml")


@app.command()
def config(
    file: File = _FILE,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Directory of the files; that of --file if unset."),
    ] = None,
    kubernetes: Annotated[
        Path | None,
        typer.Option("--kubernetes", help="Write manifests for Kubernetes, to this directory."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also replace files that were written by hand.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 when a file would change.")
    ] = False,
) -> None:
    """Writes the configuration files of every role: cube.conf, transfer.conf, gflags.conf,
    model_toolkit.prototxt, predictors.prototxt, and the flags of each process. With --kubernetes,
    manifests that hold these files for the roles in pods.

    Example: cube config --file=conf/cluster.yml --output=conf

    Example: cube config --file=deploy/kubernetes/cluster.yml --kubernetes=manifests
    """
    from cube_cluster.write_files import differing, write_files

    directory = kubernetes or output or file.parent
    deployment = _deployment(file)
    files = deployment.manifests() if kubernetes else deployment.files(directory)
    if check:
        changed = differing(directory, files)
        for name in changed:
            print(f"{directory / name}: is not as {file} says")
        raise typer.Exit(_FAILED_EXIT_CODE if changed else 0)
    changed = write_files(directory, files, force=force)
    for name in files:
        print(f"{directory / name}: {'written' if name in changed else 'as it was'}")


@app.command()
def up(
    file: File = _FILE,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when all roles are ready.")
    ] = False,
    timeout_s: TimeoutS = _READY_TIMEOUT_S,
) -> None:
    """Starts all roles of this machine, waits until they are ready, and keeps them running: a role
    that dies is started again. Ctrl-C, SIGTERM or `cube down` end them all.

    Example: cube up --file=conf/cluster.yml --detach
    """
    from cube_cluster import tables
    from cube_cluster import up as run

    log.configure("cube", logging.INFO)
    deployment = _deployment(file)
    if detach:
        tables.print_processes(run.detach(deployment, timeout_s))
        print(
            f"supervised in the background; `cube down` ends it. Log: {deployment.supervisor_log}"
        )
    else:
        run.run_supervisor(deployment, timeout_s, tables.print_processes)


@app.command()
def status(
    file: File = _FILE,
    timeout_s: Annotated[
        float, typer.Option("--timeout_s", min=0.01, help="Of each question to a role.")
    ] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Shows every role: process, uptime, ports, version, and what is wrong with it.

    Exit code 1 when one does not do its work.

    Example: cube status --file=conf/cluster.yml
    """
    from cube_cluster import tables
    from cube_cluster.status import deployment_status

    roles = deployment_status(_deployment(file), timeout_s)
    tables.print_status(roles, as_json=as_json)
    raise typer.Exit(_FAILED_EXIT_CODE if any(role.problem for role in roles) else 0)


@app.command()
def logs(
    role: Annotated[
        str | None,
        typer.Argument(metavar="[ROLE]", help="All if unset; `cube`: the supervisor."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on with what is added.")
    ] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Of each log.")] = 50,
    file: FileLong = _FILE,
) -> None:
    """Prints the end of the log of a role.

    Example: cube logs cube_transfer -f
    """
    from cube_cluster.logs import follow as follow_logs
    from cube_cluster.roles import named

    deployment = _deployment(file)
    paths = {"cube": deployment.supervisor_log}
    if role != "cube":
        roles = deployment.local_roles()
        roles = named(roles, role) if role else roles
        paths = {each.name: each.log_path(deployment.run_dir) for each in roles}
    try:
        for name, line in follow_logs(paths, lines, forever=follow):
            print(line if len(paths) == 1 else f"{name} | {line}", flush=follow)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@app.command()
def apply(
    file: File = _FILE,
    end: Annotated[
        bool, typer.Option("--end", help="Also end roles that are not in the file any more.")
    ] = False,
    timeout_s: TimeoutS = _READY_TIMEOUT_S,
) -> None:
    """Brings what is up to what the file says by now: writes the configuration files, starts the
    roles that are new, and restarts those whose files have changed, one after another.

    What a running role cannot change, such as its port, is refused by name before anything is done.

    Example: cube apply --file=conf/cluster.yml
    """
    from cube_cluster.apply import apply as apply_changes

    changed = False
    for line in apply_changes(_deployment(file), timeout_s, end=end):
        changed = True
        print(line, flush=True)
    if not changed:
        print("everything is as the file says")


@app.command()
def restart(role: RoleName, file: FileLong = _FILE, timeout_s: TimeoutS = _READY_TIMEOUT_S) -> None:
    """Writes the configuration files, ends a role, and waits until it is ready again; several of a
    kind one after another.

    Example: cube restart ctr_serving
    """
    from cube_cluster.apply import restart_with_files
    from cube_cluster.roles import named

    deployment = _deployment(file)
    roles = named(deployment.local_roles(), role)
    for line in restart_with_files(deployment, roles, timeout_s):
        print(line, flush=True)


@app.command()
def down(file: File = _FILE) -> None:
    """Ends what `cube up` started, and nothing else.

    Example: cube down --file=conf/cluster.yml
    """
    from cube_cluster.down import bring_down

    deployment = _deployment(file)
    ended = bring_down(deployment.run_dir)
    print(f"ended {', '.join(ended)}" if ended else f"{deployment.run_dir}: nothing is up")


app.command()(capacity)


def _deployment(file: Path) -> Deployment:
    from cube_cluster.deployment import Deployment

    return Deployment.read(file)


def main() -> None:
    """Entry point of the console script."""
    command_line.run(app)


if __name__ == "__main__":
    main()
