"""`cube-transfer`, the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cube_core import command_line, log
from cube_core.access import Access
from cube_core.conf.transfer_conf import read_transfer_conf
from cube_core.tls import TlsFiles
from cube_transfer.commands import CONFIG_DEFAULT, Root, add_commands
from cube_transfer.limits import REPLICA_DEADLINE_S, SAMPLE_INTERVAL_S

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def transfer(
    context: typer.Context,
    config: Annotated[
        str, typer.Option("--config", "--conf", help="Path of transfer.conf.")
    ] = CONFIG_DEFAULT,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "-p",
            min=0,
            max=65535,
            help="Port of tables and status; wget_port of the file when not given, 0 = a free one.",
        ),
    ] = None,
    keep_versions: Annotated[
        int | None,
        typer.Option(
            "--keep_versions",
            min=1,
            help="Versions of tables and dense models to keep; as the file says when not given.",
        ),
    ] = None,
    state_dir: Annotated[
        str,
        typer.Option(
            "--state_dir", help="Directory of the daemon's state; <tmp_address>/state if not given."
        ),
    ] = "",
    replica_deadline_s: Annotated[
        float,
        typer.Option(
            "--replica_deadline_s",
            min=0,
            help="A server that fails for so long is left behind when its shard has another.",
        ),
    ] = REPLICA_DEADLINE_S,
    sample_interval_s: Annotated[
        float,
        typer.Option(
            "--sample_interval_s",
            min=1,
            help="How often the page looks at what every server counts.",
        ),
    ] = SAMPLE_INTERVAL_S,
    read_token_file: command_line.ReadTokenFile = "",
    operate_token_file: command_line.OperateTokenFile = "",
    tls_cert_file: command_line.TlsCertFile = "",
    tls_key_file: command_line.TlsKeyFile = "",
    tls_ca_file: command_line.TlsCaFile = "",
    log_format: command_line.LogFormat = None,
    log_level: Annotated[
        str, typer.Option("--log_level", "-l", help="Of the original; accepted without effect.")
    ] = "",
) -> None:
    """Brings each training pass into production.

    Without a command: watches the donefile of transfer.conf, pulls every new pass, has it built
    into shard tables, ships them to every server, loads them everywhere, switches all servers, then
    publishes the dense model. Its page, http://<host>:<port>/, shows all that.

    Example: cube-transfer --config=conf/transfer.conf
    """
    tls = TlsFiles(tls_cert_file, tls_key_file, tls_ca_file)
    context.obj = Root(config, tls)
    if context.invoked_subcommand is not None:
        return
    # Imports the web framework, which the commands need not wait for.
    from cube_transfer.server import run

    conf = read_transfer_conf(config)
    if keep_versions is not None:
        conf = conf.model_copy(update={"keep_versions": keep_versions})
    log.configure("cube-transfer", log_format=log_format)
    access = Access.read(read_token_file, operate_token_file)
    access.tell_who_commands(host)
    run(
        conf,
        host=host,
        port=conf.wget_port if port is None else port,
        state_dir=Path(state_dir or Path(conf.tmp_address) / "state"),
        replica_deadline_s=replica_deadline_s,
        sample_interval_s=sample_interval_s,
        access=access,
        tls=tls,
    )


add_commands(app)


def main() -> None:
    """Entry point of the console script."""
    command_line.run(app)


if __name__ == "__main__":
    main()
