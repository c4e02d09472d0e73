"""Command line of `ctr-serving`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from cube_core import log
from cube_core.command_line import (
    LogFormat,
    ReadTokenFile,
    SlowRequestMs,
    TlsCaFile,
    TlsCertFile,
    TlsKeyFile,
    run,
)
from cube_core.errors import ConfError
from cube_core.tls import TlsFiles
from cube_core.wire.limits import WireLimits

if TYPE_CHECKING:
    from ctr_serving.options import Options

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Flags of the original's binary that name what is fixed here.
_IGNORED_FLAGS = (
    "bthread_concurrency",
    "el_log_level",
    "enable_cube",
    "enable_general_model",
    "enable_model_toolkit",
    "enable_protocol_list",
    "enable_rd_dict",
    "general_model_file",
    "general_model_path",
    "idle_timeout_s",
    "logger_file",
    "logger_path",
    "max_concurrency",
    "num_threads",
    "reload_interval_s",
    "resource_file",
    "resource_path",
    "use_parallel_infer_service",
)


@app.command()
def serve(
    conf: Annotated[Path, typer.Option("--conf", help="model_toolkit.prototxt")] = Path(
        "conf/model_toolkit.prototxt"
    ),
    cube_conf: Annotated[Path, typer.Option("--cube_conf", help="cube.conf")] = Path(
        "conf/cube.conf"
    ),
    workflow_file: Annotated[
        str, typer.Option("--workflow_file", help="workflow.prototxt; none: one op, one engine")
    ] = "",
    workflow_path: Annotated[
        str, typer.Option("--workflow_path", help="directory of workflow_file")
    ] = "",
    inferservice_file: Annotated[
        str, typer.Option("--inferservice_file", help="service.prototxt, of several workflows")
    ] = "",
    inferservice_path: Annotated[
        str, typer.Option("--inferservice_path", help="directory of inferservice_file")
    ] = "",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="baidu_std and HTTP; 0: any")
    ] = 8010,
    grpc_port: Annotated[
        int, typer.Option("--grpc_port", min=0, max=65535, help="gRPC; 0: any")
    ] = 9010,
    host: Annotated[str, typer.Option("--host", help="address to listen on")] = "127.0.0.1",
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="processes that share the ports")
    ] = 1,
    reload_interval_ms: Annotated[
        int, typer.Option("--reload_interval_ms", min=10, help="between looks for a new model")
    ] = 500,
    rows_per_request_max: Annotated[
        int, typer.Option("--rows_per_request_max", min=1, help="instances of one request")
    ] = 10_000,
    requests_pending_max: Annotated[
        int, typer.Option("--requests_pending_max", min=1, help="requests under way at once")
    ] = 1024,
    request_bytes_pending_max: Annotated[
        int,
        typer.Option("--request_bytes_pending_max", min=1, help="bytes of requests under way"),
    ] = 256 << 20,
    queue_timeout_ms: Annotated[
        int,
        typer.Option("--queue_timeout_ms", min=1, help="waiting longer for a run is refused"),
    ] = 500,
    seek_spin_us: Annotated[
        int,
        typer.Option(
            "--seek_spin_us", min=0, max=10_000, help="awake for vectors for so long; 0: never"
        ),
    ] = 300,
    slow_request_ms: SlowRequestMs = WireLimits.slow_request_ms,
    drain_timeout_s: Annotated[
        float, typer.Option("--drain_timeout_s", min=0, help="for requests under way at SIGTERM")
    ] = 10.0,
    tls_cert_file: TlsCertFile = "",
    tls_key_file: TlsKeyFile = "",
    tls_ca_file: TlsCaFile = "",
    read_token_file: ReadTokenFile = "",
    log_format: LogFormat = None,
) -> None:
    """Serves CTR predictions: asks the shard servers for embeddings, runs the dense model.

    Example: ctr-serving --port=8010 --conf=conf/model_toolkit.prototxt --cube_conf=conf/cube.conf
    """
    from ctr_serving.options import Options, ServerConf
    from ctr_serving.workflow_conf import file_of_flags

    if importlib.util.find_spec("paddle") is None:
        raise ConfError(
            "command line", "", "paddle is not installed; install the package with extra [paddle]"
        )
    log.configure("ctr-serving", log_format=log_format)
    server_conf = ServerConf(
        host=host,
        port=port,
        grpc_port=grpc_port,
        reload_interval_ms=reload_interval_ms,
        rows_per_request_max=rows_per_request_max,
        requests_pending_max=requests_pending_max,
        request_bytes_pending_max=request_bytes_pending_max,
        queue_timeout_ms=queue_timeout_ms,
        drain_timeout_s=drain_timeout_s,
        tls=TlsFiles(tls_cert_file, tls_key_file, tls_ca_file),
        read_token_file=read_token_file,
        slow_request_ms=slow_request_ms,
        seek_spin_us=seek_spin_us,
    )
    workflow = file_of_flags(workflow_path, workflow_file, "workflow.prototxt")
    services = file_of_flags(inferservice_path, inferservice_file, "service.prototxt")
    options = Options(
        conf=str(conf),
        cube_conf=str(cube_conf),
        workflow=None if workflow is None else str(workflow),
        services=None if services is None else str(services),
        server=server_conf,
    )
    uvloop.run(_serve(options, workers))


async def _serve(options: Options, workers: int) -> None:
    from ctr_serving.server import CtrServer
    from ctr_serving.supervisor import Supervisor

    # Read by the supervisor too, so that what is wrong is said before any worker starts.
    read = options.read()
    await (CtrServer(*read) if workers == 1 else Supervisor(options, workers)).run()


def main() -> None:
    """Entry point of `ctr-serving`."""
    run(app, ignored_flags=_IGNORED_FLAGS)


if __name__ == "__main__":
    main()
