"""A deployment of the original is taken over: its shards, its flags, its clients' bytes."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import httpx
import numpy as np

from cube_builder import BuildJob, build
from cube_core.versions import Version
from tests.builder.test_original_source import write_original
from tests.native.fixtures import REQUEST, RESPONSE
from tests.processes import running

FILES = Path(__file__).parent / "files"
KEY_COUNT = 1000


def value(key: int) -> bytes:
    """What the original's server answered when the bytes were captured: key + j / 16."""
    row = np.float32(key) + np.arange(10, dtype=np.float32) / 16
    return bytes(row.tobytes())


def write_original_version(directory: Path, shard_num: int) -> None:
    """`out/<depend>_<cur>` of the original's builder: a directory of files for each shard."""
    for shard in range(shard_num):
        keys = range(shard, KEY_COUNT, shard_num)
        part = directory / f"test_dict_part{shard}"
        write_original(part, [(key, value(key)) for key in keys])


def test_a_server_answers_old_clients_from_old_shards(tmp_path: Path) -> None:
    write_original_version(tmp_path / "old/10_10", shard_num=2)
    data_dir = tmp_path / "data"
    build(BuildJob("test_dict", tmp_path / "old/10_10", data_dir, 1, Version("10", "10")))

    flags = [f"--flagfile={FILES / 'gflags_cube.conf'}", "--port=0", "--grpc_port=-1"]
    arguments = [*flags, f"--data_dir={data_dir}"]
    with running("cube_server.main", arguments, cwd=tmp_path, ready_timeout_s=60) as server:
        port = server.port()
        # As the original's cube-agent tells its server.
        for command in ({"cmd": "bg_load_base", "version_path": "/10"}, {"cmd": "bg_switch"}):
            answer = httpx.post(
                f"http://127.0.0.1:{port}/ControlService/cmd", content=json.dumps(command)
            )
            assert answer.status_code == 200, answer.text
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(REQUEST)
            received = b""
            while len(received) < len(RESPONSE) and (chunk := client.recv(65536)):
                received += chunk
        assert received == RESPONSE
        assert (tmp_path / "log").is_dir()
