"""Two shard servers and a predictor, as processes of their own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ctr_serving.client import CtrClient
from cube_core._native import write_table
from cube_core.versions import Version
from tests.ctr.models import DICT_NAME, ROW_COUNT, embedding
from tests.processes import Role, running

SHARD_NUM = 2


def write_tables(
    data_dirs: Sequence[Path], version: str, seed: int, *, dim: int = 10, first_id: int = 0
) -> None:
    """Puts the tables of one version, ids to 999, where the shard servers look for them."""
    keys = np.arange(first_id, ROW_COUNT, dtype=np.uint64)
    values = np.ascontiguousarray(embedding(keys.view(np.int64), seed)[:, :dim]).view(np.uint8)
    for shard, data_dir in enumerate(data_dirs):
        directory = data_dir / version
        directory.mkdir(parents=True)
        mine = keys % len(data_dirs) == shard
        write_table(
            str(directory / f"{DICT_NAME}_part{shard}.table"),
            keys[mine],
            np.ascontiguousarray(values[mine]),
            dict_name=DICT_NAME,
            version=version,
            shard=shard,
            shard_num=len(data_dirs),
        )


@dataclass
class Shards:
    """Running shard servers by shard; `start` replaces one that was stopped, on the same port."""

    root: Path
    stack: contextlib.ExitStack
    roles: list[Role] = field(default_factory=list)
    flags: Sequence[str] = ()

    @property
    def data_dirs(self) -> list[Path]:
        return [self.root / f"shard{shard}" for shard in range(SHARD_NUM)]

    @property
    def ports(self) -> list[int]:
        return [role.port() for role in self.roles]

    def start(self, shard: int, port: int = 0) -> Role:
        return self.stack.enter_context(
            running(
                "cube_server.main",
                [
                    f"--port={port}",
                    "--grpc_port=-1",
                    f"--data_dir={self.data_dirs[shard]}",
                    f"--dict_name={DICT_NAME}",
                    f"--shard={shard}",
                    *self.flags,
                ],
                cwd=self.root,
            )
        )

    def restart(self, shard: int) -> None:
        self.roles[shard] = self.start(shard, self.ports[shard])

    def serve_version(self, version: str) -> None:
        """Loads a version whose tables are in place on every shard, then switches all."""
        for command in ("bg_load_base", "bg_switch"):
            for port in self.ports:
                answer = httpx.post(
                    f"http://127.0.0.1:{port}/ControlService/cmd",
                    json={"cmd": command, "version": str(Version.parse(version))},
                )
                assert answer.status_code == 200, answer.text


@contextlib.contextmanager
def shards_running(
    root: Path, version: str | None, seed: int = 0, flags: Sequence[str] = ()
) -> Iterator[Shards]:
    """Shard servers that serve `version`, or nothing yet."""
    with contextlib.ExitStack() as stack:
        shards = Shards(root, stack, flags=flags)
        if version is not None:
            write_tables(shards.data_dirs, version, seed)
            for data_dir in shards.data_dirs:
                (data_dir / "VERSION").write_text(f"{version}\n")
        shards.roles = [shards.start(shard) for shard in range(SHARD_NUM)]
        yield shards


def write_conf(
    root: Path, ports: Sequence[int], *, timeout_ms: int = 2000, extra: str = ""
) -> None:
    """Writes cube.conf and model_toolkit.prototxt; the model is deployed under <root>/model."""
    cube_conf = {
        "dict_name": DICT_NAME,
        "shard": len(ports),
        "dup": 1,
        "timeout": timeout_ms,
        "retry": 3,
        "type": "ipport",
        "nodes": [{"ip": "127.0.0.1", "port": port} for port in ports],
    }
    (root / "model").mkdir(exist_ok=True)
    (root / "cube.conf").write_text(json.dumps([cube_conf]))
    (root / "model_toolkit.prototxt").write_text(
        f"""
        engines {{
          name: "ctr_prediction"
          type: "PADDLE_INFER"
          reloadable_meta: "./model/fluid_time_file"
          reloadable_type: "timestamp_ne"
          model_data_path: "./model/current"
          runtime_thread_num: 1
          sparse_param_service_type: REMOTE
          sparse_param_service_table_name: "{DICT_NAME}"
          {extra}
        }}
        """
    )


class Ctr:
    """A running predictor."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self.address = f"127.0.0.1:{role.port()}"
        self.grpc_address = f"127.0.0.1:{role.port('grpc_port')}"

    def client(self, protocol: str = "baidu_std", **options: Any) -> CtrClient:
        address = self.grpc_address if protocol == "grpc" else self.address
        return CtrClient(address, protocol, **options)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://{self.address}{path}")

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.get("/status").json()
        return status

    def model_version(self) -> str | None:
        model = self.status()["model"]
        return model and str(model["version"])


@contextlib.contextmanager
def ctr_running(root: Path, *flags: str) -> Iterator[Ctr]:
    """A predictor by the files of `write_conf`."""
    arguments = [
        "--port=0",
        "--grpc_port=0",
        "--conf=model_toolkit.prototxt",
        "--cube_conf=cube.conf",
        "--reload_interval_ms=50",
        *flags,
    ]
    with running("ctr_serving.main", arguments, cwd=root) as role:
        yield Ctr(role)
