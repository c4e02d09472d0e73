"""`cube down`."""

from __future__ import annotations

from pathlib import Path

from cube_cluster.identity import end_processes
from cube_cluster.processes_file import read_processes, remove_processes
from cube_cluster.supervisor import STOP_TIMEOUT_S

# The supervisor ends its roles in two steps.
_SUPERVISOR_TIMEOUT_S = 2 * STOP_TIMEOUT_S + 10


def bring_down(run_dir: Path) -> list[str]:
    """Ends the supervisor and every role of `run_dir`, and nothing else; returns the names of what
    ran.

    Raises:
        ClusterError: processes.json cannot be read.
        PermissionError: a process belongs to another user.
    """
    record = read_processes(run_dir)
    if record is None:
        return []
    running = record.running()
    ended = []
    if record.has_supervisor:
        end_processes([record.supervisor], _SUPERVISOR_TIMEOUT_S)
        ended.append("the supervisor")
        # Read anew: it may have started a role meanwhile, and was killed if it hung.
        record = read_processes(run_dir) or record
    left = [identity for name in record.running() if (identity := record.roles[name].identity)]
    end_processes(left, STOP_TIMEOUT_S)
    remove_processes(run_dir)
    return [*running, *ended]
