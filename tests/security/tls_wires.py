"""One seek at a TLS port over each wire, and whether it was answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np

from ctr_serving.client._transports import grpc_security
from cube_api import AsyncCubeClient, CubeClient
from cube_core.tls import ClientTls, TlsFiles
from cube_proto import dict_pb2
from tests.processes import Role, running
from tests.server.tables import DICT_NAME, place_table

KEYS = np.arange(100, dtype=np.uint64)
WIRES = ["baidu_std", "baidu_std of asyncio", "http", "grpc"]
SERVICE = "rec.mcube.DictService"


@contextlib.contextmanager
def serving(directory: Path, *flags: str, port: int = 0) -> Iterator[Role]:
    """A shard server on all wires."""
    data_dir = directory / "data"
    if not data_dir.exists():
        place_table(data_dir, 10)
        (data_dir / "VERSION").write_text("10_10")
    arguments = [f"--port={port}", "--grpc_port=0", f"--data_dir={data_dir}", *flags]
    with running("cube_server.main", arguments, cwd=directory) as role:
        yield role


def conf_of(directory: Path, port: int, **tls: str) -> Path:
    """Writes a cube.conf of one shard."""
    path = directory / "cube.conf"
    entry = {
        "dict_name": DICT_NAME,
        "shard": 1,
        "timeout": 5000,
        "retry": 0,
        "nodes": [{"ip": "127.0.0.1", "port": port}],
        **({"tls": tls} if tls else {}),
    }
    path.write_text(json.dumps([entry]))
    return path


def tls_of(files: TlsFiles) -> dict[str, str]:
    """The files as the block of cube.conf."""
    named = {
        "ca_file": files.ca_file,
        "cert_file": files.cert_file,
        "key_file": files.key_file,
    }
    return {name: path for name, path in named.items() if path}


def seek(
    wire: str, role: Role, directory: Path, files: TlsFiles | None, server_name: str = ""
) -> None:
    """Returns when every key was found.

    Args:
        files: None for plain text.

    Raises:
        ShardError, httpx.TransportError, grpc.RpcError: whatever the wire makes of it.
    """
    if wire.startswith("baidu_std"):
        tls = tls_of(files) if files else {}
        conf = conf_of(
            directory, role.port(), **tls, **({"server_name": server_name} if server_name else {})
        )
        status = asyncio.run(_status(conf)) if "asyncio" in wire else _blocking_status(conf)
        assert (status == 0).all()
        return
    secured = ClientTls(files, server_name) if files else None
    values = (_grpc_values if wire == "grpc" else _http_values)(role, secured)
    assert values == len(KEYS)


def _blocking_status(conf: Path) -> np.ndarray:
    with CubeClient(conf) as client:
        return np.asarray(client.seek(DICT_NAME, KEYS).status)


async def _status(conf: Path) -> np.ndarray:
    async with AsyncCubeClient(conf) as client:
        return np.asarray((await client.seek(DICT_NAME, KEYS)).status)


def _http_values(role: Role, tls: ClientTls | None) -> int:
    scheme, verify = ("https", tls.context()) if tls else ("http", False)
    name = tls.server_name if tls else ""
    with httpx.Client(verify=verify, trust_env=False, timeout=10) as client:
        answer = client.post(
            f"{scheme}://127.0.0.1:{role.port()}/{SERVICE}/seek",
            json={"keys": KEYS.tolist()},
            extensions={"sni_hostname": name} if name else None,
        )
    return sum(each["status"] == 0 for each in answer.raise_for_status().json()["values"])


def _grpc_values(role: Role, tls: ClientTls | None) -> int:
    address = f"127.0.0.1:{role.port('grpc_port')}"
    if tls is None:
        channel = grpc.insecure_channel(address)
    else:
        channel = grpc.secure_channel(address, *grpc_security(tls))
    with channel:
        call = channel.unary_unary(f"/{SERVICE}/seek", None, None)
        answer = call(dict_pb2.DictRequest(keys=KEYS.tolist()).SerializeToString(), timeout=10)
    return sum(each.status == 0 for each in dict_pb2.DictResponse.FromString(answer).values)
