"""cube-server over TLS, asked by those who have a certificate."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from cube_api import AsyncCubeClient, CubeClient
from cube_core.errors import ConfError
from cube_core.tls import TlsFiles
from cube_proto import dict_pb2
from tests.processes import Role
from tests.security.certificates import Authority, flags
from tests.security.tls_wires import KEYS, conf_of, serving, tls_of
from tests.server.tables import DICT_NAME, rows_of


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory, "ours")


@pytest.fixture(scope="module")
def client_files(authority: Authority) -> TlsFiles:
    return authority.issue("client", trusts=authority.ca_file)


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
) -> Iterator[Role]:
    """Serves version 10_10 to those who show a certificate of `authority`."""
    identity = flags(authority.issue(trusts=authority.ca_file))
    workers = f"--workers={request.param}"
    with serving(tmp_path_factory.mktemp("server"), workers, *identity) as role:
        yield role


async def test_clients_with_a_certificate_seek(
    tmp_path: Path, server: Role, client_files: TlsFiles
) -> None:
    conf = conf_of(tmp_path, server.port(), **tls_of(client_files))
    with CubeClient(conf) as client:
        for _ in range(3):
            np.testing.assert_array_equal(client.seek(DICT_NAME, KEYS).rows, rows_of(KEYS, 10))
    async with AsyncCubeClient(conf) as client:
        results = await asyncio.gather(*(client.seek(DICT_NAME, KEYS) for _ in range(20)))
        for result in results:
            np.testing.assert_array_equal(result.rows, rows_of(KEYS, 10))


def test_paths_in_cube_conf_are_relative_to_it(
    directory: Path, server: Role, client_files: TlsFiles
) -> None:
    names = {name: Path(path).name for name, path in tls_of(client_files).items()}
    with CubeClient(conf_of(directory, server.port(), **names)) as client:
        assert (client.seek(DICT_NAME, KEYS).status == 0).all()


def test_http_and_grpc_speak_tls_too(server: Role, client_files: TlsFiles) -> None:
    context = ssl.create_default_context(cafile=client_files.ca_file)
    context.load_cert_chain(client_files.cert_file, client_files.key_file)
    url = f"https://127.0.0.1:{server.port()}"
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.get(f"{url}/status").json()["cur_version"] == "10_10"
    credentials = grpc.ssl_channel_credentials(
        Path(client_files.ca_file).read_bytes(),
        Path(client_files.key_file).read_bytes(),
        Path(client_files.cert_file).read_bytes(),
    )
    with grpc.secure_channel(f"127.0.0.1:{server.port('grpc_port')}", credentials) as channel:
        seek = channel.unary_unary("/rec.mcube.DictService/seek", None, None)
        answer = seek(dict_pb2.DictRequest(keys=[7]).SerializeToString(), timeout=10)
    assert dict_pb2.DictResponse.FromString(answer).values[0].status == 0


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    good = authority.issue()
    with pytest.raises(ConfError, match=r"nowhere\.pem"):
        CubeClient(conf_of(tmp_path, 1, ca_file="nowhere.pem"))
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ConfError, match=r"text\.pem"):
        CubeClient(conf_of(tmp_path, 1, ca_file="text.pem"))
    with pytest.raises(ConfError, match=r"text\.pem"):
        CubeClient(conf_of(tmp_path, 1, cert_file=good.cert_file, key_file="text.pem"))
