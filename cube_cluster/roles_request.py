"""What `cube apply` asks of the supervisor: roles to be started and ended."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from cube_cluster.roles import Role
from cube_core.replace_file import replace_file

_NAME = "request.json"


class RolesRequest(BaseModel):
    """Roles to run from now on, and names of those that are to run no more."""

    start: list[Role] = []
    end: list[str] = []


def request_roles(run_dir: Path, request: RolesRequest) -> None:
    """The supervisor takes it within a moment; processes.json tells what came of it."""
    replace_file(run_dir / _NAME, request.model_dump_json() + "\n")


def take_request(run_dir: Path) -> RolesRequest | None:
    """What was asked for since the last call."""
    path = run_dir / _NAME
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    path.unlink()
    return RolesRequest.model_validate_json(text)
