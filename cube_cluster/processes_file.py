"""`run/processes.json`: what a supervisor runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from cube_cluster.identity import Identity, boot_id, is_alive
from cube_core.errors import ClusterError
from cube_core.replace_file import replace_file

FILE_NAME = "processes.json"

RoleState = Literal["starting", "ready", "waiting", "ended"]


class RoleRecord(BaseModel):
    """One role.

    Attributes:
        state: `starting` until its ready line, `ready`, `waiting` to be started again, `ended`.
        identity: of its process; None while there is none.
        started_at_s: Unix time of its last start.
        ports: by name, `port` and `grpc_port`.
        restart_count: how often it died and was started again.
        last_exit: how it ended last, in words.
        fixed: that of its `Role`.
    """

    kind: str
    state: RoleState = "starting"
    identity: Identity | None = None
    started_at_s: float = 0.0
    host: str
    ports: dict[str, int]
    command: list[str]
    log: str
    restart_count: int = 0
    last_exit: str = ""
    fixed: dict[str, str] = {}


class ProcessesRecord(BaseModel):
    """A supervisor and its roles. `state` is `up` when all roles were ready once."""

    format: Literal[1] = 1
    boot_id: str
    cluster_file: str
    state: Literal["starting", "up", "stopping"] = "starting"
    supervisor: Identity
    roles: dict[str, RoleRecord]

    @property
    def has_supervisor(self) -> bool:
        """Whether the supervisor still runs."""
        return self.boot_id == boot_id() and is_alive(self.supervisor)

    def is_running(self, name: str) -> bool:
        """Whether the process of a role runs that the file tells of."""
        return self.boot_id == boot_id() and is_alive(self.roles[name].identity)

    def told(self, name: str) -> str:
        """A role with its pid."""
        identity = self.roles[name].identity
        return f"{name} (pid {identity.pid})" if identity else name

    def running(self) -> list[str]:
        """Names of the roles whose processes run."""
        return [name for name in self.roles if self.is_running(name)]


def read_processes(run_dir: Path) -> ProcessesRecord | None:
    """What `run_dir` tells; None when nothing was started there, or all of it was ended.

    Raises:
        ClusterError: the file is not what a supervisor wrote.
    """
    path = run_dir / FILE_NAME
    try:
        return ProcessesRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        problem = "is not what `cube up` writes; end by hand what runs, and remove the file"
        raise ClusterError(f"{path}: {problem}") from error


def running_record(run_dir: Path) -> ProcessesRecord:
    """As `read_processes`, of a supervisor that runs.

    Raises:
        ClusterError: there is none; or as `read_processes`.
    """
    record = read_processes(run_dir)
    if record is None:
        raise ClusterError(f"{run_dir}: nothing is up; start it with `cube up`")
    if not record.has_supervisor:
        raise ClusterError(f"{run_dir}: the supervisor is gone; run `cube down`, then `cube up`")
    return record


def write_processes(run_dir: Path, record: ProcessesRecord) -> None:
    """Replaces the file whole."""
    replace_file(run_dir / FILE_NAME, record.model_dump_json(indent=2) + "\n")


def remove_processes(run_dir: Path) -> None:
    (run_dir / FILE_NAME).unlink(missing_ok=True)
