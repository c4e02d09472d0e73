"""The predictor over TLS, asked over every wire by those who have a certificate."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from ctr_serving.client import AsyncCtrClient, CtrClient
from ctr_serving.client._routes import read_routes
from cube_core.errors import ConfError, ConnectError, RpcError
from cube_core.tls import ClientTls, TlsFiles
from tests.cluster.site import free_ports
from tests.ctr.models import DICT_NAME, direct_probabilities, embedding, publish, requests_of
from tests.ctr.service import SHARD_NUM, Ctr, Shards, ctr_running, write_conf, write_tables
from tests.ctr.test_client import PREDICTORS
from tests.processes import running
from tests.security.certificates import Authority, Side, flags
from tests.waiting import wait_until

READ = "token-to-read"


@pytest.fixture(scope="module")
def client_files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    authority = Authority(tmp_path_factory.mktemp("certificates"), "ours")
    return authority.issue(trusts=authority.ca_file)


@pytest.fixture(scope="module")
def https(client_files: TlsFiles) -> ssl.SSLContext:
    return ClientTls(client_files).context()


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def secured(
    request: pytest.FixtureRequest,
    shards: Shards,
    models: dict[int, Path],
    client_files: TlsFiles,
    https: ssl.SSLContext,
    monkeypatch_module: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Ctr]:
    root = tmp_path_factory.mktemp("secured")
    write_conf(root, shards.ports)
    publish(root / "model", models[1])
    (root / "token").write_text(READ)
    # Without a token to operate this machine may do everything, and so read.
    monkeypatch_module.setenv("CUBE_OPERATE_TOKEN", "token-to-operate")
    tls_flags = [*flags(client_files), "--read_token_file=token", f"--workers={request.param}"]
    with (
        ctr_running(root, *tls_flags) as ctr,
        httpx.Client(base_url=f"https://{ctr.address}", verify=https, trust_env=False) as http,
    ):
        wait_until(lambda: http.get("/ready").status_code == 200, 60, "a model is served")
        yield ctr


@pytest.mark.parametrize("protocol", ["baidu_std", "grpc", "http"])
async def test_predictions_over_every_wire(
    secured: Ctr, models: dict[int, Path], client_files: TlsFiles, protocol: str
) -> None:
    ids, dense = requests_of(20)
    expected = direct_probabilities(models[1], embedding(ids, 1), dense)
    tls = ClientTls(client_files)
    with secured.client(protocol, tls=tls) as client:
        for _ in range(3):
            np.testing.assert_allclose(client.predict(ids, dense), expected, atol=1e-5)
    address = secured.grpc_address if protocol == "grpc" else secured.address
    async with AsyncCtrClient(address, protocol, tls=tls) as asking:
        np.testing.assert_allclose(await asking.predict(ids, dense), expected, atol=1e-5)


@pytest.mark.parametrize("protocol", ["baidu_std", "grpc", "http"])
def test_who_shows_no_certificate_gets_no_prediction(
    secured: Ctr, client_files: TlsFiles, protocol: str
) -> None:
    ids, dense = requests_of(1)
    for tls in (None, ClientTls(TlsFiles(ca_file=client_files.ca_file))):
        client = secured.client(protocol, tls=tls, timeout_ms=5000, retry_count=0)
        with client, pytest.raises(ConnectError):
            client.predict(ids, dense)


def test_pages_need_the_read_token(secured: Ctr, https: ssl.SSLContext) -> None:
    with httpx.Client(base_url=f"https://{secured.address}", verify=https, trust_env=False) as http:
        for path in ("/status", "/metrics"):
            assert http.get(path).status_code == 401
            authorized = http.get(path, headers={"authorization": f"Bearer {READ}"})
            assert authorized.status_code == 200
        assert http.get("/health").status_code == 200


PROTOCOLS = ["baidu_std", "grpc", "http"]
PLAIN_PORT = ["baidu_std", "http"]


async def test_certificates_and_authorities_are_replaced_while_predictors_and_clients_run(
    shards: Shards, models: dict[int, Path], tmp_path: Path
) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    server, kept = Side.of(tmp_path / "server", old), Side.of(tmp_path / "kept", old)
    write_conf(tmp_path, shards.ports)
    publish(tmp_path / "model", models[1])
    ids, dense = requests_of(5)
    expected = direct_probabilities(models[1], embedding(ids, 1), dense)

    def serving(*ports: str) -> contextlib.AbstractContextManager[Ctr]:
        return ctr_running(tmp_path, *ports, *flags(server.files))

    def is_answered(client: CtrClient) -> bool:
        try:
            np.testing.assert_allclose(client.predict(ids, dense), expected, atol=1e-5)
        except (ConnectError, RpcError):
            return False
        return True

    def gets_in(ctr: Ctr, protocol: str, shows: Authority, trusts: Authority) -> bool:
        tls = ClientTls(shows.issue("client", trusts=trusts.ca_file))
        with ctr.client(protocol, tls=tls, timeout_ms=5000, retry_count=0) as client:
            return is_answered(client)

    with contextlib.ExitStack() as stack:
        with serving() as ctr:
            wait_until(lambda: gets_in(ctr, "baidu_std", old, old), 60, "a model is served")
            tls = ClientTls(kept.files)
            clients = [stack.enter_context(ctr.client(each, tls=tls)) for each in PROTOCOLS]
            asked = [
                AsyncCtrClient(ctr.grpc_address if each == "grpc" else ctr.address, each, tls=tls)
                for each in PROTOCOLS
            ]

            async def ask_all() -> list[bool]:
                answers = [await client.predict(ids, dense) for client in asked]
                found = [np.allclose(answer, expected, atol=1e-5) for answer in answers]
                return [*found, *(is_answered(client) for client in clients)]

            assert await ask_all() == [True] * 6
            server.show(new)
            for protocol in PROTOCOLS:
                assert gets_in(ctr, protocol, old, new), protocol
                assert not gets_in(ctr, protocol, old, old), protocol
            server.trust(new)
            for protocol in PROTOCOLS:
                assert gets_in(ctr, protocol, new, new), protocol
                assert not gets_in(ctr, protocol, old, new), protocol
            ports = (f"--port={ctr.role.port()}", f"--grpc_port={ctr.role.port('grpc_port')}")
        kept.show(new)
        kept.trust(new)
        # What was connected is gone, so that all connect anew, with what is in the files now.
        with serving(*ports) as ctr:
            wait_until(lambda: gets_in(ctr, "baidu_std", new, new), 60, "a model is served")
            assert await ask_all() == [True] * 6
            for client in asked:
                await client.close()


def test_the_files_of_a_cluster_are_all_that_its_clients_need(
    models: dict[int, Path], tmp_path: Path
) -> None:
    """From cluster.yml to a prediction; what the certificates hold is a name, and no address."""
    authority = Authority(tmp_path, "own")
    identity = authority.issue("cube.example", trusts=authority.ca_file)
    names = ("tls_cert_file", "tls_key_file", "tls_ca_file")
    paths = (identity.cert_file, identity.key_file, identity.ca_file)
    *server_ports, transfer_port, port, grpc_port = free_ports(SHARD_NUM + 3)
    conf = {
        "name": DICT_NAME,
        "donefile_address": "passes",
        "shards": SHARD_NUM,
        "servers": [{"port": each, "grpc_port": -1} for each in server_ports],
        "transfer": {"port": transfer_port},
        "model_path": "model",
        "timeout_ms": 5000,
    }
    cluster = {
        "dicts": [conf],
        "ctr": {
            "servers": [{"port": port, "grpc_port": grpc_port}],
            "engines": [{"dict_name": DICT_NAME}],
        },
        "security": {
            **{name: Path(path).name for name, path in zip(names, paths, strict=True)},
            "tls_server_name": "cube.example",
        },
    }
    (tmp_path / "cluster.yml").write_text(yaml.safe_dump(cluster))
    written = python(tmp_path, "cube_cluster.main", "config", "--file=cluster.yml", "--output=conf")
    assert written.returncode == 0, written.stderr
    (tmp_path / "model").mkdir()
    publish(tmp_path / "model", models[1])
    data_dirs = [tmp_path / "data" / f"cube_server_{shard}" for shard in range(SHARD_NUM)]
    write_tables(data_dirs, "1_1", 1)
    rows = [[str(row)] * 13 + [f"{slot:x}" for slot in range(26)] for row in range(7)]
    (tmp_path / "rows.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    with contextlib.ExitStack() as stack:
        for shard, data_dir in enumerate(data_dirs):
            (data_dir / "VERSION").write_text("1_1\n")
            flags = ["--flagfile=conf/gflags.conf", f"--flagfile=conf/cube_server_{shard}.flags"]
            stack.enter_context(running("cube_server.main", flags, cwd=tmp_path))
        stack.enter_context(
            running("ctr_serving.main", ["--flagfile=conf/ctr_serving_0.flags"], cwd=tmp_path)
        )
        client = ("ctr_serving.client.main", "--conf=conf/predictors.prototxt", "--data=rows.tsv")
        wait_until(lambda: python(tmp_path, *client).returncode == 0, 60, "a model is served")
        by_protocol = [python(tmp_path, *client, f"--protocol={each}") for each in PLAIN_PORT]
        for ended in by_protocol:
            assert ended.returncode == 0, ended.stderr
            assert len(ended.stdout.splitlines()) == len(rows)
        assert len({ended.stdout for ended in by_protocol}) == 1
        # The file is read from wherever it is, and what is given in code counts before it.
        with CtrClient.from_conf(tmp_path / "conf" / "predictors.prototxt") as asking:
            asking.predict(*requests_of(1))
        stranger = Authority(tmp_path, "stranger")
        other = ClientTls(TlsFiles(ca_file=stranger.ca_file), "cube.example")
        with (
            CtrClient.from_conf(tmp_path / "conf" / "predictors.prototxt", tls=other) as asking,
            pytest.raises(ConnectError, match=r"(?i)certificate"),
        ):
            asking.predict(*requests_of(1))


def python(cwd: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_variants_may_differ_in_how_they_are_secured(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "own")
    path = tmp_path / "predictors.prototxt"
    text = PREDICTORS.read_text().replace('"100"', '"1|1"')
    secured = 'connection_conf { tls { ca_file: "own-ca.pem" server_name: "cube.example" } }'
    more = f'variants {{ tag: "two" {secured} naming_conf {{ cluster: "list://h:1" }} }}'
    path.write_text(text.replace("variants {", more + "\n  variants {", 1))
    two, one = read_routes(path, "ctr_prediction_service").variants
    assert one.options.tls is None
    assert two.options.tls == ClientTls(TlsFiles(ca_file=authority.ca_file), "cube.example")
    Path(authority.ca_file).write_text("no certificate")
    with pytest.raises(ConfError, match=r"own-ca\.pem"):
        CtrClient.from_conf(path)
    path.write_text(path.read_text().replace("ca_file", "ca_flie"))
    with pytest.raises(ConfError, match=r"predictors\.prototxt:\d+: .*ca_flie"):
        CtrClient.from_conf(path)


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nowhere\.pem"):
        CtrClient("127.0.0.1:1", tls=ClientTls(TlsFiles(ca_file=str(tmp_path / "nowhere.pem"))))
