"""A site of real processes: shard servers, and the daemon that deploys to them."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from tests.processes import Role, running
from tests.transfer.fault_proxy import FaultProxy, proxied
from tests.transfer.passes import DICT_NAME, KEY_COUNT, Content, Trainer, rows_in, rows_of
from tests.waiting import wait_until


class Site:
    """`shard_num` × `copy_num` servers, each behind a fault proxy, and a trainer's directory."""

    def __init__(self, root: Path, shard_num: int, copy_num: int) -> None:
        self.root = root
        self.shard_num = shard_num
        self.copy_num = copy_num
        self.trainer = Trainer(root / "train")
        self.servers: dict[str, Role] = {}
        self.proxies: dict[str, FaultProxy] = {}
        self.output = root / "output"
        self.tmp = root / "tmp"
        self.model = root / "model"
        self.daemon: Role | None = None
        self._ports: dict[str, int] = {}
        self._topology = 0
        self.behind_proxies = True
        """Proxies carry control commands only: without them seeks go to the same addresses."""
        self._stack = contextlib.ExitStack()
        # One client for all: making one costs more than what is asked.
        self.http = self._stack.enter_context(httpx.Client(trust_env=False))

    def start(self) -> None:
        for shard in range(self.shard_num):
            for copy in range(self.copy_num):
                name = f"cube{shard}_{copy}"
                if name in self.servers:
                    continue
                server = self.start_server(name)
                proxy, port = self._stack.enter_context(proxied(f"127.0.0.1:{server.port()}"))
                self.proxies[name], self._ports[name] = proxy, port

    def reshard(self, shard_num: int, keep: int = 0) -> None:
        """Starts the servers of another topology; the old ones run on, and the first `keep` of
        them belong to the new one as well."""
        kept = list(self.servers)[:keep]
        self.servers = {name: self.servers[name] for name in kept}
        self.proxies = {name: self.proxies[name] for name in kept}
        self._ports = {name: self._ports[name] for name in kept}
        self.shard_num = shard_num
        self._topology += 1
        self.start()

    def start_server(self, name: str, port: int = 0) -> Role:
        """Starts a server, behind its proxy if it has one already."""
        arguments = [f"--port={port}", "--grpc_port=-1", f"--data_dir={self.data_dir(name)}"]
        arguments.append(f"--dict_name={DICT_NAME}")
        server = self._stack.enter_context(
            running("cube_server.main", arguments, cwd=self.root, preloaded=True)
        )
        self.servers[name] = server
        if name in self.proxies:
            self.proxies[name].target = f"127.0.0.1:{server.port()}"
        return server

    def data_dir(self, name: str) -> Path:
        suffix = f"-{self._topology}" if self._topology else ""
        return Path("data") / f"{name}{suffix}"

    def close(self) -> None:
        self._stack.close()

    def write_conf(self, **changes: object) -> Path:
        fields: dict[str, object] = {
            "dict_name": DICT_NAME,
            "mode": "base_only",
            "download_mode": "http",
            "wget_port": 8098,
            "donefile_address": self.trainer.donefile.parent,
            "output_address": self.output,
            "tmp_address": self.tmp,
            "shard_num": self.shard_num,
            "copy_num": self.copy_num,
            "model_deploy_path": self.model,
            "poll_interval_ms": 100,
            **changes,
        }
        lines = [f"{name}: {value}" for name, value in fields.items()]
        ports = self._ports
        if not self.behind_proxies:
            ports = {name: server.port() for name, server in self.servers.items()}
        servers = [f"{name}: 127.0.0.1:{port}:./x" for name, port in ports.items()]
        path = self.root / "transfer.conf"
        path.write_text("\n".join(["[default]", *lines, "[cube_agent]", *servers, ""]))
        return path

    @contextlib.contextmanager
    def transfer(self, *flags: str, **changes: object) -> Iterator[Role]:
        """Runs the daemon, with `changes` of transfer.conf."""
        conf = self.write_conf(**changes)
        arguments = [f"--config={conf}", "--port=0", *flags]
        with running("cube_transfer.main", arguments, cwd=self.root, preloaded=True) as daemon:
            self.daemon = daemon
            yield daemon

    def url(self) -> str:
        """Of the daemon."""
        assert self.daemon is not None
        return f"http://127.0.0.1:{self.daemon.port()}"

    def status(self) -> dict[str, Any]:
        reply = self.http.get(f"{self.url()}/status")
        status: dict[str, Any] = reply.raise_for_status().json()
        return status

    def stage(self, pass_id: str) -> str:
        """How far a pass is; "" when it is not known."""
        found = (record for record in self.status()["passes"] if record["id"] == pass_id)
        return str(next(found, {"stage": ""})["stage"])

    def pass_error(self, pass_id: str) -> str:
        found = (record for record in self.status()["passes"] if record["id"] == pass_id)
        return str(next(found)["error"])

    def await_stage(self, pass_id: str, stage: str) -> None:
        wait_until(lambda: self.stage(pass_id) == stage, what=f"pass {pass_id} {stage}")

    def await_step(self, pass_id: str, step: str) -> None:
        def is_at() -> bool:
            deploying = self.status()["deploying"] or {}
            return (deploying.get("id"), deploying.get("step")) == (pass_id, step)

        wait_until(is_at, what=f"pass {pass_id} in step {step}")

    def versions(self) -> set[str]:
        """What the servers say that they serve."""
        return {self.command(name, "status")["cur_version"] for name in self.servers}

    def command(self, name: str, cmd: str, **fields: object) -> dict[str, Any]:
        """Sends a command past the proxy."""
        url = f"http://127.0.0.1:{self.servers[name].port()}/ControlService/cmd"
        reply: dict[str, Any] = self.http.post(url, json={"cmd": cmd, **fields}).json()
        return reply

    def daemon_pid(self) -> int:
        assert self.daemon is not None
        return self.daemon.process.pid

    def seek(self, name: str, keys: Sequence[int]) -> tuple[str, list[bytes | None]]:
        """The version that a server answers from, and its row of each key; None = missing."""
        url = f"http://127.0.0.1:{self.servers[name].port()}/DictService/seek"
        body = {"keys": list(keys), "version_required": True}
        reply = self.http.post(url, json=body).raise_for_status().json()
        rows = [
            None if value["status"] else base64.b64decode(value["value"])
            for value in reply["values"]
        ]
        return str(reply["version"]), rows

    def shard_of(self, name: str) -> int:
        return int(name.removeprefix("cube").split("_")[0])

    def require_served(self, pass_id: str, key_count: int = KEY_COUNT) -> None:
        """Every server of every shard answers with exactly the pass's rows."""
        for name, server in self.servers.items():
            keys = np.arange(self.shard_of(name), key_count, self.shard_num, dtype=np.uint64)
            body = {"keys": [*keys.tolist(), 1 << 40], "version_required": True}
            url = f"http://127.0.0.1:{server.port()}/DictService/seek"
            reply = self.http.post(url, json=body).raise_for_status().json()
            assert reply["version"] == f"{pass_id}_{pass_id}"
            *found, missing = reply["values"]
            assert {value["status"] for value in found} == {0}
            assert missing["status"] == 0xFFFFFFFF
            rows = b"".join(base64.b64decode(value["value"]) for value in found)
            assert rows == rows_of(pass_id, keys).tobytes()

    def require_content(self, version: str, content: Content) -> None:
        """Every server of every shard answers from the version, with exactly these rows."""
        last = max(content) + 1
        for name in self.servers:
            keys = range(self.shard_of(name), last + self.shard_num, self.shard_num)
            found, rows = self.seek(name, keys)
            assert found == version, name
            assert rows == rows_in(content, keys), name

    def published(self) -> str:
        """The version that CTR servers are told to serve, all three signs agreeing."""
        version = (self.model / "fluid_time_file").read_text().strip()
        assert (self.model / "current").resolve() == (self.model / version).resolve()
        assert (self.model / "current" / "model.pdiparams").read_bytes()
        return version

    def require_tidy(self) -> None:
        """No temporary file is left anywhere."""
        pulls = self.tmp / "pulls"
        assert not pulls.exists() or list(pulls.iterdir()) == []
        for directory in (self.output, self.model):
            assert [path.name for path in directory.rglob(".*")] == []
