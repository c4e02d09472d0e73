"""What the commands print."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cube_cluster.processes_file import ProcessesRecord
from cube_cluster.status import RoleStatus

_PIPED_WIDTH = 220


def print_processes(record: ProcessesRecord) -> None:
    """A line a role: what was started."""
    table = Table()
    for column in ("role", "pid", "host", "ports", "log"):
        table.add_column(column, no_wrap=True)
    for name, role in record.roles.items():
        pid = str(role.identity.pid) if role.identity else "-"
        table.add_row(name, pid, role.host, _ports(role.ports), escape(role.log))
    _print(table)


def print_status(roles: list[RoleStatus], *, as_json: bool) -> None:
    """A line a role: how it is."""
    if as_json:
        print(json.dumps([asdict(role) for role in roles], indent=2))
        return
    table = Table()
    for column in ("role", "serves", "pid", "uptime", "host", "ports", "version"):
        table.add_column(column, no_wrap=True)
    for column in ("keys", "requests/s", "restarts"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state")
    for role in roles:
        table.add_row(
            role.name,
            escape(role.what),
            str(role.pid or "-"),
            "-" if role.uptime_s is None else str(timedelta(seconds=int(role.uptime_s))),
            role.host,
            _ports(role.ports),
            escape(role.version) or "-",
            "-" if role.keys is None else f"{role.keys:,}",
            "-" if role.requests_per_s is None else f"{role.requests_per_s:,.1f}",
            str(role.restart_count),
            f"[red]{escape(role.problem)}[/]" if role.problem else "[green]ok[/]",
        )
    _print(table)


def _ports(ports: Mapping[str, int]) -> str:
    return " ".join(f"{name}={port}" for name, port in ports.items())


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH  # For programs: nothing is cut off.
    console.print(table)
