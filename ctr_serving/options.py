"""What a predictor is told: the files that say what is served, and the flags of the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ctr_serving.conf import EngineConf, read_engine_confs
from ctr_serving.workflow_conf import Node, read_workflow
from cube_core.tls import TlsFiles
from cube_core.wire.limits import WireLimits


@dataclass(frozen=True)
class ServerConf:
    """Flags of the process; port 0 is any free one. With a certificate in `tls`, ports speak TLS
    only. `read_token_file` has the token for what operators look at; "" for the environment's."""

    host: str
    port: int
    grpc_port: int
    reload_interval_ms: int
    rows_per_request_max: int
    requests_pending_max: int
    request_bytes_pending_max: int
    queue_timeout_ms: int
    drain_timeout_s: float
    seek_spin_us: int
    tls: TlsFiles = field(default_factory=TlsFiles)
    read_token_file: str = ""
    slow_request_ms: int = WireLimits.slow_request_ms


@dataclass(frozen=True)
class Options:
    """The command line; workers are told the same as their supervisor.

    Attributes:
        conf, cube_conf: paths of model_toolkit.prototxt and cube.conf.
        workflow, services: paths of workflow.prototxt and service.prototxt; None for the op of the
            one engine.
        server: flags.
    """

    conf: str
    cube_conf: str
    workflow: str | None
    services: str | None
    server: ServerConf

    def read(self) -> tuple[list[EngineConf], ServerConf, Sequence[Sequence[Node]] | None]:
        """Engines, flags and ops, as `CtrServer` takes them.

        Raises:
            ConfError: names the file and the field.
        """
        confs = read_engine_confs(self.conf, self.cube_conf)
        files = [
            Path(each) if each is not None else None for each in (self.workflow, self.services)
        ]
        return confs, self.server, read_workflow(files[0], files[1], confs)

    def on_ports(self, port: int, grpc_port: int) -> Options:
        """The same, with these ports."""
        return replace(self, server=replace(self.server, port=port, grpc_port=grpc_port))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Options:
        server = {**fields["server"], "tls": TlsFiles(**fields["server"]["tls"])}
        return cls(**{**fields, "server": ServerConf(**server)})
