"""The whole service on this machine: shard servers, a transfer daemon a dict, the CTR server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ctr_serving.client import CtrClient
from cube_core.conf.transfer_conf import read_transfer_conf
from examples.criteo_ctr.example import Example
from examples.criteo_ctr.processes import ProcessGroup, Role
from examples.criteo_ctr.run_directory import Ports

_HOST = "127.0.0.1"
_READY_TIMEOUT_S = 60.0
_REQUEST_TIMEOUT_MS = 10_000


class Service:
    """The roles, started from the files in <run_dir>/conf; leaving the `with` block ends them."""

    def __init__(self, run_dir: Path, ports: Ports, example: Example) -> None:
        self._processes = ProcessGroup(run_dir)
        self._ports = ports
        self._ctr_flags = example.ctr_flags
        self._confs = {
            name: read_transfer_conf(run_dir / "conf" / name) for name in example.transfer_confs
        }
        # The daemons watch directories below it.
        first = self._confs[example.transfer_confs[0]]
        self.training_output_dir = (run_dir / first.donefile_address).parent

    def start(self) -> list[str]:
        """Starts every role and returns their ready lines.

        Raises:
            ProcessError: a role ended, or was not ready in time.
        """
        roles = [*self._start_servers(), *self._start_transfers(), self._start_ctr()]
        return [self._processes.wait_ready(role, _READY_TIMEOUT_S) for role in roles]

    def _start_servers(self) -> Iterator[Role]:
        replicas = [replica for conf in self._confs.values() for replica in conf.replicas]
        for number, replica in enumerate(replicas):
            yield self._processes.start(
                f"cube-server-{number}",
                "cube_server.main",
                [
                    "--flagfile=conf/gflags.conf",
                    f"--port={replica.endpoint.port}",
                    f"--grpc_port={self._ports.cube_grpc[number]}",
                    f"--data_dir={replica.deploy_path}",
                ],
            )

    def _start_transfers(self) -> Iterator[Role]:
        for name in self._confs:
            role = f"cube-{Path(name).stem}"
            yield self._processes.start(role, "cube_transfer.main", [f"--config=conf/{name}"])

    def _start_ctr(self) -> Role:
        return self._processes.start(
            "ctr-serving",
            "ctr_serving.main",
            [
                f"--port={self._ports.ctr}",
                f"--grpc_port={self._ports.ctr_grpc}",
                "--conf=conf/model_toolkit.prototxt",
                "--cube_conf=conf/cube.conf",
                *self._ctr_flags,
            ],
        )

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
