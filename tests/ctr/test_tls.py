"""The predictor over TLS, asked over every wire by those who have a certificate."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ctr_serving.client import AsyncCtrClient, CtrClient
from cube_core.errors import ConnectError, RpcError
from cube_core.tls import ClientTls, TlsFiles
from tests.ctr.models import direct_probabilities, embedding, publish, requests_of
from tests.ctr.service import Ctr, Shards, ctr_running, write_conf
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


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nowhere\.pem"):
        CtrClient("127.0.0.1:1", tls=ClientTls(TlsFiles(ca_file=str(tmp_path / "nowhere.pem"))))
