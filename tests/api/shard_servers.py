"""Real shard servers with the tables of `tests.api.peers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cube_core.endpoint import Endpoint
from tests.api.peers import write_shard
from tests.processes import Role, running


@contextmanager
def shard_server(folder: Path, port: int = 0) -> Iterator[Role]:
    arguments = [f"--port={port}", "--grpc_port=-1", f"--data_dir={folder}", "--dict_name=d"]
    with running("cube_server.main", arguments, cwd=folder) as role:
        yield role


def new_shard(folder: Path, shard: int, *, shard_num: int = 2) -> Path:
    """A data directory with versions 1_1, which is served, and 2_2."""
    for version in ("1_1", "2_2"):
        target = folder / version
        target.mkdir(parents=True)
        table = write_shard(folder, shard, shard_num, version)
        Path(table.path).rename(target / f"d_part{shard}.table")
    (folder / "VERSION").write_text("1_1")
    return folder


def endpoint_of(role: Role) -> Endpoint:
    return Endpoint("127.0.0.1", role.port())
