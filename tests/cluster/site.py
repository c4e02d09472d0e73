"""A cluster of real roles on free ports in a temporary directory, and `cube` run on it."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from cube_cluster.identity import Identity, end_processes
from cube_cluster.processes_file import ProcessesRecord, read_processes

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports that are free now, held together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Site:
    """One shard server a port and a transfer daemon; no CTR server, which would import Paddle."""

    def __init__(self, folder: Path, *, server_count: int = 1) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        *self.server_ports, self.transfer_port = free_ports(server_count + 1)
        self.file = folder / "cluster.yml"
        self.write({})

    def write(self, changes: dict[str, object]) -> None:
        """Writes cluster.yml with `changes` of its top level."""
        servers = [{"port": port, "grpc_port": -1} for port in self.server_ports]
        conf = {
            "name": "d",
            "donefile_address": "passes/donefile",
            "shards": len(servers),
            "servers": servers,
            "transfer": {"port": self.transfer_port},
        }
        self.file.write_text(yaml.safe_dump({"dicts": [conf], **changes}), encoding="utf-8")

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "cube_cluster.main", *arguments, "--file=cluster.yml"]

    def cube(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs `cube` in the folder."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def record(self) -> ProcessesRecord:
        record = read_processes(self.run_dir)
        assert record is not None
        return record

    def identity(self, role: str) -> Identity:
        identity = self.record().roles[role].identity
        assert identity is not None
        return identity

    def log(self, role: str) -> str:
        return (self.run_dir / role / f"{role}.log").read_text(errors="replace")

    def clean(self) -> None:
        """Ends what is left of a test, whatever became of it."""
        record = read_processes(self.run_dir)
        if record is not None:
            end_processes([record.supervisor], 30)
            record = read_processes(self.run_dir) or record
            roles = [role.identity for role in record.roles.values()]
            end_processes([each for each in roles if each is not None], 5)


def pids_of(record: ProcessesRecord) -> list[int]:
    roles: Sequence[Identity | None] = [role.identity for role in record.roles.values()]
    return [each.pid for each in (record.supervisor, *roles) if each is not None]


def states(output: str) -> dict[str, str]:
    """The last column of a table of `cube status`, by role."""
    rows = re.findall(r"^│ (\w+_\d+) .*│ ([^│]*?) *│$", output, re.MULTILINE)
    return dict(rows)
