"""`cube up`: all roles of this machine, in the foreground or the background."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable

from cube_cluster.deployment import Deployment
from cube_cluster.processes_file import ProcessesRecord, read_processes
from cube_cluster.supervisor import Supervisor, locked
from cube_cluster.write_files import write_files
from cube_core.errors import ClusterError

_POLL_INTERVAL_S = 0.1


def run_supervisor(
    deployment: Deployment, timeout_s: float, on_up: Callable[[ProcessesRecord], None]
) -> None:
    """Runs the roles until SIGINT, SIGTERM or SIGHUP.

    Raises:
        ClusterError: it is up already, a port is taken, or a role cannot be started.
        ConfError: a file in the way was not written by `cube`.
    """
    with locked(deployment.run_dir):
        write_files(deployment.conf_dir, deployment.files(deployment.conf_dir))
        supervisor = Supervisor(
            deployment.local_roles(), deployment.run_dir, deployment.path, timeout_s
        )
        asyncio.run(supervisor.run(on_up))


def detach(deployment: Deployment, timeout_s: float) -> ProcessesRecord:
    """Runs a supervisor in the background, and waits until all roles are ready.

    Raises:
        ClusterError: it ended; with what it said.
    """
    with locked(deployment.run_dir):
        pass  # Says why not, before a process is started for it.
    with deployment.supervisor_log.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "cube_cluster.main", "up"),
                *(f"--file={deployment.path}", f"--timeout_s={timeout_s}"),
            ],
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        record = _wait_up(deployment, process)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    if record is not None:
        return record
    said = deployment.supervisor_log.read_text(encoding="utf-8", errors="replace").strip()
    raise ClusterError(said.removeprefix("error: ") or f"it ended; see {deployment.supervisor_log}")


def _wait_up(deployment: Deployment, process: subprocess.Popen[bytes]) -> ProcessesRecord | None:
    """None when the supervisor has ended."""
    pause = threading.Event()
    while process.poll() is None:
        record = read_processes(deployment.run_dir)
        if record and record.supervisor.pid == process.pid and record.state == "up":
            return record
        pause.wait(_POLL_INTERVAL_S)
    return None
