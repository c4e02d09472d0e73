"""The whole service on this machine: two shard servers, the transfer daemon, the CTR server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ctr_serving.client import CtrClient
from cube_core.conf.transfer_conf import read_transfer_conf
from examples.criteo_ctr.processes import ProcessGroup
from examples.criteo_ctr.run_directory import Ports

_HOST = "127.0.0.1"
_READY_TIMEOUT_S = 60.0
_REQUEST_TIMEOUT_MS = 10_000


class Service:
    """The roles, started from the files in <run_dir>/conf; leaving the `with` block ends them."""

    def __init__(self, run_dir: Path, ports: Ports) -> None:
        self._processes = ProcessGroup(run_dir)
        self._ports = ports
        self._conf = read_transfer_conf(run_dir / "conf" / "transfer.conf")
        self.dict_name = self._conf.dict_name
        # The daemon watches <output>/donefile.
        self.training_output_dir = (run_dir / self._conf.donefile_address).parent

    def start(self) -> list[str]:
        """Starts every role and returns their ready lines.

        Raises:
            ProcessError: a role ended, or was not ready in time.
        """
        start = self._processes.start
        roles = [
            start(
                f"cube-server-{replica.shard}",
                "cube_server.main",
                [
                    "--flagfile=conf/gflags.conf",
                    f"--port={replica.endpoint.port}",
                    f"--grpc_port={grpc_port}",
                    f"--data_dir={replica.deploy_path}",
                ],
            )
            for replica, grpc_port in zip(self._conf.replicas, self._ports.cube_grpc, strict=True)
        ]
        roles.append(start("cube-transfer", "cube_transfer.main", ["--config=conf/transfer.conf"]))
        roles.append(
            start(
                "ctr-serving",
                "ctr_serving.main",
                [
                    f"--port={self._ports.ctr}",
                    f"--grpc_port={self._ports.ctr_grpc}",
                    "--conf=conf/model_toolkit.prototxt",
                    "--cube_conf=conf/cube.conf",
                ],
            )
        )
        return [self._processes.wait_ready(role, _READY_TIMEOUT_S) for role in roles]

    def check_alive(self) -> None:
        """Raises ProcessError when a role has ended by itself."""
        self._processes.check_alive()

    def connector(self, protocol: str) -> Callable[[], CtrClient]:
        """Makes CTR clients that speak `protocol`, one of `PROTOCOLS`, and hide no failure by a
        second try."""
        port = self._ports.ctr_grpc if protocol == "grpc" else self._ports.ctr
        return lambda: CtrClient(
            f"{_HOST}:{port}", protocol, timeout_ms=_REQUEST_TIMEOUT_MS, retry_count=0
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        self._processes.stop()
