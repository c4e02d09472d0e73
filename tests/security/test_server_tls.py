"""cube-server over TLS: all wires, and who does not get in."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import numpy as np
import pytest

from cube_api import AsyncCubeClient, CubeClient
from cube_core.errors import ConfError, ShardError
from cube_core.tls import TlsFiles
from cube_proto import dict_pb2
from tests.processes import Role, running
from tests.security.certificates import Authority, flags
from tests.server.tables import DICT_NAME, place_table, rows_of
from tests.waiting import wait_until

KEYS = np.arange(1000, dtype=np.uint64)


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
def server(request: pytest.FixtureRequest, directory: Path, authority: Authority) -> Iterator[Role]:
    """Serves version 10_10 to those who show a certificate of `authority`."""
    data_dir = directory / f"data-{request.param}"
    place_table(data_dir, 10)
    (data_dir / "VERSION").write_text("10_10")
    with running(
        "cube_server.main",
        [
            "--port=0", "--grpc_port=0", f"--data_dir={data_dir}", f"--workers={request.param}",
            *flags(authority.issue(trusts=authority.ca_file)),
        ],
        cwd=directory,
    ) as role:  # fmt: skip
        yield role


def conf_of(directory: Path, port: int, **tls: str) -> Path:
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
    return {
        "ca_file": files.ca_file,
        "cert_file": files.cert_file,
        "key_file": files.key_file,
    }


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


@pytest.mark.parametrize("case", ["no certificate", "a stranger's certificate", "an expired one"])
def test_clients_without_a_good_certificate_do_not_get_in(
    tmp_path: Path, server: Role, authority: Authority, case: str
) -> None:
    files = {
        "no certificate": TlsFiles(ca_file=authority.ca_file),
        "a stranger's certificate": Authority(tmp_path, "stranger").issue(
            "client", trusts=authority.ca_file
        ),
        "an expired one": authority.issue("client", expired=True, trusts=authority.ca_file),
    }[case]
    with (
        CubeClient(conf_of(tmp_path, server.port(), **tls_of(files))) as client,
        pytest.raises(ShardError, match=r"127\.0\.0\.1"),
    ):
        client.seek(DICT_NAME, KEYS)


async def test_a_server_of_another_authority_is_not_believed(
    tmp_path: Path, server: Role, client_files: TlsFiles
) -> None:
    stranger = Authority(tmp_path, "stranger")
    conf = conf_of(tmp_path, server.port(), **{**tls_of(client_files), "ca_file": stranger.ca_file})
    with CubeClient(conf) as client, pytest.raises(ShardError, match=r"(?i)certificate"):
        client.seek(DICT_NAME, KEYS)
    async with AsyncCubeClient(conf) as client:
        with pytest.raises(ShardError, match=r"(?i)certificate"):
            await client.seek(DICT_NAME, KEYS)


def test_a_server_of_another_name_is_not_believed(
    tmp_path: Path, server: Role, client_files: TlsFiles
) -> None:
    conf = conf_of(
        tmp_path, server.port(), **tls_of(client_files), server_name="shard0.example.org"
    )
    with CubeClient(conf) as client, pytest.raises(ShardError, match=r"(?i)hostname mismatch"):
        client.seek(DICT_NAME, KEYS)


def test_plain_text_to_a_tls_port_gets_no_answer(tmp_path: Path, server: Role) -> None:
    with CubeClient(conf_of(tmp_path, server.port())) as client, pytest.raises(ShardError):
        client.seek(DICT_NAME, KEYS)
    with socket.create_connection(("127.0.0.1", server.port()), timeout=10) as plain:
        plain.sendall(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while piece := plain.recv(4096):
            answer += piece
    assert b"HTTP/1.1" not in answer


def test_certificates_are_replaced_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    served = old.issue()
    data_dir = tmp_path / "data"
    place_table(data_dir, 10)
    (data_dir / "VERSION").write_text("10_10")
    with running(
        "cube_server.main",
        ["--port=0", "--grpc_port=-1", f"--data_dir={data_dir}", *flags(served)],
        cwd=tmp_path,
    ) as role:

        def trusted_by(authority: Authority) -> bool:
            conf = conf_of(tmp_path, role.port(), ca_file=authority.ca_file)
            with CubeClient(conf) as client:
                try:
                    return bool((client.seek(DICT_NAME, KEYS).status == 0).all())
                except ShardError:
                    return False

        assert (trusted_by(old), trusted_by(new)) == (True, False)
        # Half of the pair does not fit: the old one stays.
        replacement = new.issue("localhost")
        shutil.copy(replacement.cert_file, served.cert_file)
        assert (trusted_by(old), trusted_by(new)) == (True, False)
        assert "the certificates before it stay in use" in role.log()
        replacement = new.issue()
        shutil.copy(replacement.key_file, served.key_file)
        shutil.copy(replacement.cert_file, served.cert_file)
        wait_until(lambda: trusted_by(new), 5, "the new certificate is shown")
        assert not trusted_by(old)


def test_files_that_cannot_be_used_are_named(tmp_path: Path, authority: Authority) -> None:
    good = authority.issue()
    with pytest.raises(ConfError, match=r"nowhere\.pem"):
        CubeClient(conf_of(tmp_path, 1, ca_file="nowhere.pem"))
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ConfError, match=r"text\.pem"):
        CubeClient(conf_of(tmp_path, 1, ca_file="text.pem"))
    with pytest.raises(ConfError, match=r"text\.pem"):
        CubeClient(conf_of(tmp_path, 1, cert_file=good.cert_file, key_file="text.pem"))
