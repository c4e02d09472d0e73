"""The predictor over TLS, asked over every wire by those who have a certificate."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ctr_serving.client import AsyncCtrClient, CtrClient
from cube_core.errors import ConnectError
from cube_core.tls import ClientTls, TlsFiles
from tests.ctr.models import direct_probabilities, embedding, publish, requests_of
from tests.ctr.service import Ctr, Shards, ctr_running, write_conf
from tests.security.certificates import Authority, flags
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


def test_a_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"nowhere\.pem"):
        CtrClient("127.0.0.1:1", tls=ClientTls(TlsFiles(ca_file=str(tmp_path / "nowhere.pem"))))
