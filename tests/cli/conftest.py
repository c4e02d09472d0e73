"""Two shard servers, and the command run as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cube_core.endpoint import Endpoint
from tests.processes import running
from tests.server.tables import DICT_NAME, make_table

SHARD_NUM = 2


@dataclass(frozen=True)
class Done:
    """What a finished command left."""

    code: int
    stdout: str
    stderr: str


def cli(*arguments: str, timeout_s: float = 60) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "cube_api.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def write_conf(path: Path, shards: list[list[Endpoint]], **changes: Any) -> Path:
    """A cube.conf with one dict of these shards and their replicas."""
    entry = {
        "dict_name": DICT_NAME,
        "shard": len(shards),
        "timeout": 2000,
        "retry": 1,
        "type": "ipport_list",
        "nodes": [{"ipport_list": "list://" + ",".join(map(str, shard))} for shard in shards],
    }
    path.write_text(json.dumps([{**entry, **changes}]))
    return path


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Endpoint]]:
    """Servers of pass 10 in two shards."""
    with ExitStack() as stack:
        endpoints = []
        for shard in range(SHARD_NUM):
            directory = tmp_path_factory.mktemp(f"shard_{shard}")
            table = directory / "data" / "10_10" / f"{DICT_NAME}_part{shard}.table"
            make_table(table, 10, shard=shard, shard_num=SHARD_NUM)
            (directory / "data" / "VERSION").write_text("10_10\n")
            arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data"]
            role = stack.enter_context(running("cube_server.main", arguments, cwd=directory))
            endpoints.append(Endpoint("127.0.0.1", role.port()))
        yield endpoints


@pytest.fixture(scope="session")
def conf(shards: list[Endpoint], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("conf") / "cube.conf"
    return write_conf(path, [[endpoint] for endpoint in shards])
