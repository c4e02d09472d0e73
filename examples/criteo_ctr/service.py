"""The whole service on this machine, as `cube up` runs it: shard servers, daemon, CTR server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ctr_serving.client import CtrClient
from cube_cluster.deployment import Deployment
from cube_cluster.down import bring_down
from cube_cluster.layout import ctr_servers
from cube_cluster.processes_file import ProcessesRecord, read_processes
from cube_core.errors import CubeError
from examples.criteo_ctr import interrupts
from examples.criteo_ctr.run_directory import CLUSTER_FILE

_READY_TIMEOUT_S = 60.0
# The supervisor ends its roles in two steps of 20 s at most.
_STOP_TIMEOUT_S = 50.0
_POLL_INTERVAL_S = 0.05
_REQUEST_TIMEOUT_MS = 10_000


class ServiceError(CubeError):
    """A process of the service ended, or was not ready in time."""


class Service:
    """The cluster of <run_dir>/conf/cluster.yml; leaving the `with` block ends its processes."""

    def __init__(self, run_dir: Path) -> None:
        cluster = Deployment.read(run_dir / CLUSTER_FILE).cluster
        # The daemons watch directories below it.
        self.training_output_dir = (run_dir / cluster.dicts[0].donefile_address).parent
        self._ctr = ctr_servers(cluster)[0]
        self._run_dir = run_dir
        self._log_path = run_dir / "cube.log"
        self._supervisor: subprocess.Popen[bytes] | None = None

    def start(self) -> str:
        """Starts every role and returns what `cube up` printed.

        Raises:
            ServiceError: a role ended, or was not ready in time.
        """
        with interrupts.held(), self._log_path.open("wb") as log:
            supervisor = subprocess.Popen(  # noqa: S603
                [
                    *(sys.executable, "-m", "cube_cluster.main", "up"),
                    *(f"--file={CLUSTER_FILE}", f"--timeout_s={_READY_TIMEOUT_S}"),
                ],
                cwd=self._run_dir,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is for the demo alone; it ends the others in order.
                start_new_session=True,
            )
            self._supervisor = supervisor
        pause = threading.Event()
        while self._processes(supervisor).state != "up":
            pause.wait(_POLL_INTERVAL_S)
        return self._said()

    def check_alive(self) -> None:
        """Raises ServiceError when a role has ended by itself; it may be running again."""
        if self._supervisor is None:
            return
        for name, role in self._processes(self._supervisor).roles.items():
            if role.last_exit:
                raise ServiceError(f"{name} {role.last_exit}; its log: {self._run_dir / role.log}")

    def connector(self, protocol: str) -> Callable[[], CtrClient]:
        """Makes CTR clients that speak `protocol`, one of `PROTOCOLS`, and hide no failure by a
        second try."""
        port = self._ctr.grpc_port if protocol == "grpc" else self._ctr.port
        return lambda: CtrClient(
            f"{self._ctr.host}:{port}", protocol, timeout_ms=_REQUEST_TIMEOUT_MS, retry_count=0
        )

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        with interrupts.held():
            self._stop()

    def _stop(self) -> None:
        if self._supervisor is None:
            return
        self._supervisor.terminate()
        try:
            self._supervisor.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()
            self._supervisor.wait()
        # What a supervisor that was killed left behind.
        bring_down(self._run_dir)

    def _processes(self, supervisor: subprocess.Popen[bytes]) -> ProcessesRecord:
        """What `cube up` runs, which waits here until there is something to tell."""
        pause = threading.Event()
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while supervisor.poll() is None and time.monotonic() < deadline:
            if record := read_processes(self._run_dir):
                return record
            pause.wait(_POLL_INTERVAL_S)
        raise ServiceError(f"`cube up` ended: {self._said().removeprefix('error: ')}")

    def _said(self) -> str:
        return self._log_path.read_text(encoding="utf-8", errors="replace").strip()
