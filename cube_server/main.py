"""`cube-server`: serves one shard of one dict."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cube_core import command_line, log
from cube_core.access import Access
from cube_core.errors import ConfError
from cube_core.tls import TlsFiles
from cube_core.wire.limits import WireLimits
from cube_server.settings import DOWNLOAD_BYTES_MAX, FOLD_PERCENT, KEEP_REPLACED_S, WANT_TIMEOUT_S

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

_PORT_MAX = 65_535
# Flags of gflags, glog, brpc and the original server that files of the original may carry.
IGNORED_FLAGS = frozenset(
    {
        "alsologtostderr",
        "bthread_concurrency",
        "colorlogtostderr",
        "event_dispatcher_num",
        "idle_timeout_s",
        "log_prefix",
        "logbufsecs",
        "logtostderr",
        "max_body_size",
        "max_concurrency",
        "max_log_size",
        "minloglevel",
        "num_threads",
        "stderrthreshold",
        "v",
        "vmodule",
    }
)


@app.command()
def serve(
    port: Annotated[
        int,
        typer.Option("--port", min=0, max=_PORT_MAX, help="baidu_std and HTTP; 0: any free one"),
    ] = 8001,
    grpc_port: Annotated[
        int | None,
        typer.Option(
            "--grpc_port",
            min=-1,
            max=_PORT_MAX,
            help="gRPC; 0: any free one, -1: none.  [default: port + 1000]",
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on")] = "127.0.0.1",
    data_dir: Annotated[
        Path, typer.Option("--data_dir", file_okay=False, help="Versions on disk, and VERSION")
    ] = Path("data"),
    dict_name: Annotated[
        list[str] | None,
        typer.Option(
            "--dict_name",
            help="The dict it serves; those that are found in <data_dir> if unset. Several, each in"
            " a directory of its name in <data_dir>: repeat it",
        ),
    ] = None,
    shard: Annotated[
        int | None,
        typer.Option(
            "--shard", min=0, help="The shard it serves; that of the first table if unset"
        ),
    ] = None,
    in_mem: Annotated[
        bool,
        typer.Option("--in_mem/--noin_mem", help="Read tables into memory; else map the files"),
    ] = True,
    dict_split: Annotated[
        int,
        typer.Option("--dict_split", min=1, help="Of the original; tables here have one file"),
    ] = 1,
    log_dir: Annotated[
        Path | None, typer.Option("--log_dir", help="Directory for a copy of what stderr gets")
    ] = None,
    keep_versions: Annotated[
        int,
        typer.Option("--keep_versions", min=1, help="Kept for pinned requests and for rollback"),
    ] = 2,
    keep_replaced_s: Annotated[
        float,
        typer.Option(
            "--keep_replaced_s",
            min=0,
            help="Versions beyond those are kept so long after they were replaced, for pins",
        ),
    ] = KEEP_REPLACED_S,
    fold_percent: Annotated[
        float,
        typer.Option(
            "--fold_percent",
            min=0,
            help="Patches that changed more of a base's keys are folded into it; 0: never",
        ),
    ] = FOLD_PERCENT,
    want_timeout_s: Annotated[
        float,
        typer.Option(
            "--want_timeout_s",
            min=0,
            help="Not ready so long after a restart, unless told which version is wanted",
        ),
    ] = WANT_TIMEOUT_S,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", min=1, max=256, help="Processes that answer seeks, sharing port and tables"
        ),
    ] = 1,
    keys_per_request_max: Annotated[
        int, typer.Option("--keys_per_request_max", min=1, help="Keys of one seek")
    ] = 1_000_000,
    download_bytes_max: Annotated[
        int, typer.Option("--download_bytes_max", min=1, help="A table that it is told to fetch")
    ] = DOWNLOAD_BYTES_MAX,
    frame_bytes_max: Annotated[
        int, typer.Option("--frame_bytes_max", min=1024, help="One frame, body or message")
    ] = WireLimits.frame_bytes_max,
    connections_max: Annotated[
        int, typer.Option("--connections_max", min=1, help="Open connections of the port")
    ] = WireLimits.connections_max,
    partial_bytes_max: Annotated[
        int,
        typer.Option(
            "--partial_bytes_max", min=1024, help="Frames that have not come whole, all together"
        ),
    ] = WireLimits.partial_bytes_max,
    idle_timeout_ms: Annotated[
        int, typer.Option("--idle_timeout_ms", min=0, help="Idle connections are closed; 0: never")
    ] = WireLimits.idle_timeout_ms,
    frame_timeout_ms: Annotated[
        int,
        typer.Option("--frame_timeout_ms", min=0, help="For a request to come whole; 0: any time"),
    ] = WireLimits.frame_timeout_ms,
    in_flight_max: Annotated[
        int,
        typer.Option(
            "--in_flight_max", min=1, help="Requests of one connection under way in threads"
        ),
    ] = WireLimits.in_flight_max,
    write_buffer_bytes_max: Annotated[
        int,
        typer.Option(
            "--write_buffer_bytes_max", min=1024, help="Answers waiting for one peer to read them"
        ),
    ] = WireLimits.write_buffer_bytes_max,
    unread_bytes_max: Annotated[
        int,
        typer.Option(
            "--unread_bytes_max", min=1024, help="Answers waiting to be read, all peers together"
        ),
    ] = WireLimits.unread_bytes_max,
    write_timeout_ms: Annotated[
        int,
        typer.Option(
            "--write_timeout_ms", min=0, help="For a peer to read its answers; 0: any time"
        ),
    ] = WireLimits.write_timeout_ms,
    slow_request_ms: command_line.SlowRequestMs = WireLimits.slow_request_ms,
    drain_timeout_s: Annotated[
        float,
        typer.Option(
            "--drain_timeout_s", min=0, help="Time to answer what is under way at the end"
        ),
    ] = 10.0,
    tls_cert_file: command_line.TlsCertFile = "",
    tls_key_file: command_line.TlsKeyFile = "",
    tls_ca_file: command_line.TlsCaFile = "",
    read_token_file: command_line.ReadTokenFile = "",
    operate_token_file: command_line.OperateTokenFile = "",
    log_format: command_line.LogFormat = None,
    flagfile: Annotated[
        str, typer.Option("--flagfile", help="A file of flags, one a line; later flags win")
    ] = "",
) -> None:
    """Serves one shard of one dict over baidu_std, HTTP and gRPC, from the version that
    <data_dir>/VERSION names, or empty until a version is downloaded and switched to.

    Example: cube-server --flagfile=conf/gflags.conf --port=8001 --data_dir=data/0
    """
    from cube_server.server import run
    from cube_server.settings import ServerSettings
    from cube_server.store import DICT_NAME

    log.configure("cube-server", log_format=log_format)
    if log_dir is not None:
        _log_to(log_dir / f"cube-server.{port}.log")
    dict_names = tuple(name for name in dict_name or () if name)
    for name in dict_names:
        if not DICT_NAME.fullmatch(name):
            raise ConfError(
                "command line", "--dict_name", f"{name!r}: use letters, digits, '_', '.'"
            )
        if dict_names.count(name) > 1:
            raise ConfError("command line", "--dict_name", f"{name!r} is given twice")
    access = Access.read(read_token_file, operate_token_file)
    access.tell_who_commands(host)
    if grpc_port is None:
        grpc_port = port + 1000 if 0 < port <= _PORT_MAX - 1000 else 0
    run(
        ServerSettings(
            host=host,
            port=port,
            grpc_port=None if grpc_port < 0 else grpc_port,
            data_dir=data_dir,
            dict_names=dict_names,
            shard=shard,
            in_memory=in_mem,
            keep_versions=keep_versions,
            keep_replaced_s=keep_replaced_s,
            fold_percent=fold_percent,
            want_timeout_s=want_timeout_s,
            keys_per_request_max=keys_per_request_max,
            download_bytes_max=download_bytes_max,
            workers=workers,
            tls=TlsFiles(tls_cert_file, tls_key_file, tls_ca_file),
            access=access,
            drain_timeout_s=drain_timeout_s,
            limits=WireLimits(
                frame_bytes_max=frame_bytes_max,
                partial_bytes_max=partial_bytes_max,
                connections_max=connections_max,
                idle_timeout_ms=idle_timeout_ms,
                frame_timeout_ms=frame_timeout_ms,
                in_flight_max=in_flight_max,
                write_buffer_bytes_max=write_buffer_bytes_max,
                unread_bytes_max=unread_bytes_max,
                write_timeout_ms=write_timeout_ms,
                slow_request_ms=slow_request_ms,
            ),
        )
    )


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    root = logging.getLogger()
    handler.setFormatter(root.handlers[0].formatter)
    root.addHandler(handler)


def main() -> NoReturn:
    """Entry point of the console script."""
    command_line.run(app, ignored_flags=IGNORED_FLAGS)


if __name__ == "__main__":
    main()
