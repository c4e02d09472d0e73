"""`cluster.yml`: what a deployment consists of."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cube_cluster.kubernetes.section import Kubernetes, ServerPods
from cube_core.conf.transfer_conf import BuildOptions

FlagValue = bool | int | float | str


def _one_line(text: str) -> str:
    """Text that every file it goes to can carry: transfer.conf begins a comment at a '#' or '//'
    that stands first or behind a blank."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("must be one line without blanks around it")
    if re.search(r"(?:^|\s)(?:#|//)", text):
        raise ValueError("'#' and '//' cannot stand first or behind a blank")
    return text


Port = Annotated[int, Field(ge=1, le=65535)]
GrpcPort = Annotated[int, Field(ge=-1, le=65535)]
Host = Annotated[str, Field(pattern=r"^[0-9A-Za-z_.\-]{1,253}$")]
Text = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
DictName = Annotated[str, Field(pattern=r"^[0-9A-Za-z_.\-]{1,128}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class ServerPlace(_Part):
    """Where one shard server runs; `grpc_port` -1: no gRPC."""

    host: Host | None = None
    port: Port
    grpc_port: GrpcPort | None = None
    data_dir: Text | None = None


class CtrPlace(_Part):
    """Where one CTR server runs."""

    host: Host | None = None
    port: Port = 8010
    grpc_port: Port | None = None


class TransferPlace(_Part):
    """Where the transfer daemon of a dict runs, and what transfer.conf tells it."""

    host: Host | None = None
    port: Port = 8098
    output_address: Text | None = None
    tmp_address: Text | None = None
    keep_versions: int | None = Field(default=None, ge=1)
    poll_interval_ms: int | None = Field(default=None, ge=10)
    download_bytes_max: int | None = Field(default=None, ge=1)
    pass_bytes_max: int | None = Field(default=None, ge=1)
    input_roots: Text | None = None


class Servers(_Part):
    """A topology of shard servers: how a dict is cut, and where it is served.

    They are placed by `hosts`, `port` and `grpc_port`, or each by `servers`, shard by shard, and
    numbered from `first_server` on; None: on from those that stand before them in the file.
    """

    shards: int = Field(ge=1, le=65535)
    replicas: int = Field(default=1, ge=1, le=1024)
    hosts: list[Host] | None = Field(default=None, min_length=1)
    port: Port | None = None
    grpc_port: GrpcPort | None = None
    servers: list[ServerPlace] | None = None
    first_server: int | None = Field(default=None, ge=0, le=999_999)


class Dict(Servers):
    """One dict: where its passes come from, how it is cut, where it is served.

    `retiring` are the servers of the topology before, which run until all clients have left them.
    The second half are the clients' settings in cube.conf; unset ones are left to its reader.
    """

    name: DictName
    donefile_address: Text
    mode: Literal["base_only", "base_delta"] = "base_only"
    retiring: Servers | None = None
    model_path: Text | None = None
    build: BuildOptions = BuildOptions()
    transfer: TransferPlace = TransferPlace()
    kubernetes: ServerPods | None = None

    timeout_ms: int | None = Field(default=None, ge=1)
    retry: int | None = Field(default=None, ge=0)
    backup_request_ms: int | None = None
    backup_request_share_max: float | None = Field(default=None, ge=0, le=1)
    load_balancer: Literal["rr", "random", "wr", "la", "c_murmurhash"] | None = None


class Engine(_Part):
    """One engine of model_toolkit.prototxt, over the embedding and the dense model of a dict."""

    name: Text = "ctr_prediction"
    dict_name: DictName
    model_url: Text | None = None
    reloadable_type: Literal["timestamp_ne", "timestamp_gt", "md5sum", "revision", "none"] = (
        "timestamp_ne"
    )
    runtime_thread_num: int | None = Field(default=None, ge=0, le=256)
    batch_infer_size: int | None = Field(default=None, ge=0, le=65536)
    enable_batch_align: bool | None = None
    batch_wait_us: int | None = Field(default=None, ge=0, le=10_000)
    default_embedding_value: float | None = None
    failed_shards: Literal["ERROR", "DEGRADE"] | None = None


class CtrClients(_Part):
    """How CTR clients connect, in predictors.prototxt."""

    connect_timeout_ms: int = Field(default=2000, ge=1)
    rpc_timeout_ms: int = Field(default=20000, ge=1)
    connect_retry_count: int = Field(default=2, ge=0)
    hedge_request_timeout_ms: int = Field(default=-1, ge=-1)


class Ctr(_Part):
    """The CTR servers, all alike."""

    servers: list[CtrPlace] = Field(min_length=1)
    engines: list[Engine] = Field(min_length=1)
    clients: CtrClients = CtrClients()


class FlagsByRole(_Part):
    """Flags of each role's command by name, without the dashes."""

    cube_server: dict[str, FlagValue] = {}
    cube_transfer: dict[str, FlagValue] = {}
    ctr_serving: dict[str, FlagValue] = {}


class LimitsByRole(_Part):
    """Those flags that are limits."""

    cube_server: dict[str, int] = {}
    ctr_serving: dict[str, int] = {}


class Security(_Part):
    """Who may look at the deployment and who may command it, and TLS between its parts: for all
    roles that know these flags. A certificate is shown to clients and to servers alike."""

    read_token_file: Text | None = None
    operate_token_file: Text | None = None
    tls_cert_file: Text | None = None
    tls_key_file: Text | None = None
    tls_ca_file: Text | None = None
    tls_server_name: Text | None = None


class Cluster(_Part):
    """A deployment. Relative paths are seen from the directory that the roles are started in.

    Attributes:
        host: where roles run that name no host.
        listen_host: address that roles listen on; that of their host when unset.
        run_dir: logs and state of `cube up`.
        data_dir: what roles keep, unless they name another place.
        kubernetes: for the manifests of a deployment on Kubernetes; None: there are none.
    """

    host: Host = "127.0.0.1"
    listen_host: Host | None = None
    run_dir: Text = "run"
    data_dir: Text = "data"
    dicts: list[Dict] = Field(min_length=1)
    ctr: Ctr | None = None
    flags: FlagsByRole = FlagsByRole()
    limits: LimitsByRole = LimitsByRole()
    security: Security = Security()
    kubernetes: Kubernetes | None = None
