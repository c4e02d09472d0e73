"""The CTR client: which server it asks, what its errors say, and its command line."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import ctr_serving.client
from ctr_serving.client import (
    PROTOCOLS,
    ConfError,
    ConnectError,
    CtrClient,
    RpcError,
    RpcTimeoutError,
)
from ctr_serving.client._routes import Options, read_routes
from ctr_serving.criteo import read_rows
from tests.ctr.models import requests_of
from tests.ctr.service import Ctr

PREDICTORS = Path(__file__).parents[2] / "conf" / "predictors.prototxt"


@contextlib.contextmanager
def peer(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does `talk` with every connection; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(connection)
                    talk(connection)

        connections: list[socket.socket] = []
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


def closed_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_public_names() -> None:
    assert set(ctr_serving.client.__all__) >= {"CtrClient", "PredictionError", "RpcError"}
    for name in ctr_serving.client.__all__:
        assert getattr(ctr_serving.client, name) is not None


def test_the_client_imports_no_paddle() -> None:
    code = "import ctr_serving.client.main, sys; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nobody_listens(protocol: str) -> None:
    address = closed_address()
    with CtrClient(address, protocol) as client, pytest.raises(ConnectError, match=address):
        client.predict(*requests_of(1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_peer_that_never_answers(protocol: str) -> None:
    with (
        peer(lambda connection: None) as address,
        CtrClient(address, protocol, timeout_ms=200) as client,
        pytest.raises(RpcTimeoutError, match=f"{address}: no answer within"),
    ):
        client.predict(*requests_of(1))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_peer_that_answers_garbage(protocol: str) -> None:
    with (
        peer(lambda connection: connection.sendall(b"garbage" * 10)) as address,
        CtrClient(address, protocol, timeout_ms=2000) as client,
        pytest.raises(RpcError, match=address),
    ):
        client.predict(*requests_of(1))


@pytest.mark.parametrize("protocol", ["baidu_std", "http"])
def test_a_server_that_is_down_is_passed_over(ctr: Ctr, protocol: str) -> None:
    with CtrClient(f"list://{closed_address()},{ctr.address}", protocol) as client:
        for _ in range(4):
            assert len(client.predict(*requests_of(2))) == 2


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_threads_share_a_client(ctr: Ctr, protocol: str) -> None:
    with ctr.client(protocol) as client:
        expected = client.predict(*requests_of(5, seed=3))
        agree: list[bool] = []

        def ask() -> None:
            for _ in range(10):
                found = client.predict(*requests_of(5, seed=3))
                agree.append(bool(np.abs(found - expected).max() < 1e-6))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert agree == [True] * 40


def test_shapes_that_do_not_fit_are_refused_before_anything_is_sent() -> None:
    with CtrClient("127.0.0.1:1") as client, pytest.raises(ValueError, match="dense"):
        client.predict(np.zeros((2, 26), np.int64), np.zeros((3, 13), np.float32))


@pytest.mark.parametrize("address", ["", "localhost", "h:0", "h:x", "file://x"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfError):
        CtrClient(address)


def test_the_sample_configuration_is_read() -> None:
    routes = read_routes(PREDICTORS, "ctr_prediction_service")
    (variant,) = routes.variants
    assert (variant.tag, routes.protocol) == ("var1", "baidu_std")
    assert [str(next(variant.servers(0.0))) for _ in range(3)] == ["127.0.0.1:8010"] * 3
    assert variant.options == Options(
        connect_timeout_ms=2000,
        timeout_ms=20_000,
        retry_count=2,
        hedge_timeout_ms=-1,
        hedge_count=2,
    )


def two_variants(tmp_path: Path, weights: str) -> Path:
    text = PREDICTORS.read_text().replace('"100"', f'"{weights}"')
    text = text[: text.rindex("}")] + (
        'variants { tag: "var2" naming_conf { cluster: "list://h1:1,h2:2" } } }'
    )
    path = tmp_path / "predictors.prototxt"
    path.write_text(text)
    return path


def test_variants_are_picked_by_weight(tmp_path: Path) -> None:
    routes = read_routes(two_variants(tmp_path, "30|70"), "ctr_prediction_service")
    picked = Counter(routes.pick().tag for _ in range(4000))
    assert 0.25 < picked["var1"] / 4000 < 0.35
    routes = read_routes(two_variants(tmp_path, "0|1"), "ctr_prediction_service")
    assert {routes.pick().tag for _ in range(100)} == {"var2"}
    first = [str(next(routes.variants[1].servers(0.0))) for _ in range(3)]
    assert first == ["h1:1", "h2:2", "h1:1"]


def test_a_variant_changes_the_fields_that_it_names(tmp_path: Path) -> None:
    path = two_variants(tmp_path, "1|1")
    own = "connection_conf { rpc_timeout_ms: 100 hedge_request_timeout_ms: 7 }"
    path.write_text(path.read_text().replace('tag: "var2"', f'tag: "var2" {own}'))
    first, second = read_routes(path, "ctr_prediction_service").variants
    assert (first.options.timeout_ms, first.can_hedge) == (20_000, False)
    assert second.options == Options(
        connect_timeout_ms=2000, timeout_ms=100, retry_count=2, hedge_timeout_ms=7, hedge_count=2
    )
    assert second.can_hedge


def test_the_variant_that_answers_is_told_and_may_be_chosen(ctr: Ctr, tmp_path: Path) -> None:
    path = two_variants(tmp_path, "1|1")
    path.write_text(
        path.read_text()
        .replace("127.0.0.1:8010", closed_address())
        .replace("h1:1,h2:2", ctr.address)
    )
    with CtrClient.from_conf(path) as client:
        assert client.variants == ("var1", "var2")
        answer = client.ask(*requests_of(3), variant="var2")
        assert (answer.variant, answer.endpoint, answer.message) == ("var2", ctr.address, "")
        assert answer.probabilities.shape == (3, 2)
        with pytest.raises(ConnectError):
            client.ask(*requests_of(3), variant="var1")
        with pytest.raises(ValueError, match="no variant has the tag 'var3', only var1, var2"):
            client.ask(*requests_of(3), variant="var3")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"100"', '"50|50"', "predictors[0].weighted_random_render_conf.variant_weight_list"),
        ('"100"', '"x"', "'x' is not a weight"),
        ('"100"', '"0"', "'0' is not a weight"),
        ("WeightedRandomRender", "Other", "predictors[0].endpoint_router: 'Other'"),
        ('name: "ctr_prediction_service"', 'name: "x"', "there is no 'ctr_prediction_service'"),
        ("127.0.0.1:8010", "127.0.0.1", "predictors[0].variants[0]: naming_conf.cluster"),
        ("list://127", "file://127", "file:// is not supported"),
        ("rpc_timeout_ms: 20000", "rpc_timeout_ms: 0", "rpc_timeout_ms: is 0, must be 1"),
        ("timeout_ms: -1", "timeout_ms: -2", "hedge_request_timeout_ms: is -2, must be -1"),
        ('protocol: "baidu_std"', 'protocol: "nshead"', "'nshead' is none of baidu_std"),
        ("default_variant_conf", "default_conf", "default_conf"),
    ],
)
def test_a_bad_configuration_is_named_by_file_and_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tmp_path / "predictors.prototxt"
    text = PREDICTORS.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfError, match=re.escape(message)):
        CtrClient.from_conf(path)


def ctr_client(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ctr_serving.client.main", *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Seven Criteo rows."""
    path = tmp_path / "rows.tsv"
    rows = [[str(row)] * 13 + [f"{row * 26 + slot:08x}" for slot in range(26)] for row in range(7)]
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_command_line_prints_probabilities_and_latency(ctr: Ctr, data: Path, protocol: str) -> None:
    address = ctr.grpc_address if protocol == "grpc" else ctr.address
    flags = [f"--data={data}", f"--protocol={protocol}", "--batch_size=3", "--limit=5"]
    ended = ctr_client(f"--address={address}", *flags)
    assert ended.returncode == 0, ended.stderr
    found = np.array([line.split("\t") for line in ended.stdout.splitlines()], np.float64)
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    rows = read_rows(data, 5)
    with ctr.client() as client:
        expected = client.predict(rows.sparse_ids, rows.dense)
    np.testing.assert_allclose(found[:, 1:], expected, atol=1e-6, rtol=0)
    assert re.search(r"^Total request : 2$", ended.stderr, re.MULTILINE), ended.stderr


def test_the_report_is_that_of_the_original(ctr: Ctr, data: Path) -> None:
    flags = ["--batch_size=3", "--concurrency=2", "--repeat=4", "--enable_profiling=true"]
    ended = ctr_client(f"--address={ctr.address}", f"--data={data}", *flags)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
    number = r"\d+\.\d+"
    assert re.fullmatch(
        rf"""Total request : 24
Batch size : 3
Max concurrency : 2
enable_profiling: 1
repeat count: 4
Total time : {number}ms
Variance : {number}ms
Max time : {number}ms
Min time : {number}ms
QPS: {number}/s
Latency statistics:\x20
Mean time : {number}
50 percent ms: {number}
80 percent ms: {number}
90 percent ms: {number}
99 percent ms: {number}
99.9 percent ms: {number}
Rows: 56, {number}/s
""",
        ended.stderr,
    ), ended.stderr


def test_rows_are_printed_once_however_often_they_are_asked_for(ctr: Ctr, data: Path) -> None:
    flags = [f"--data={data}", "--batch_size=3", "--concurrency=3", "--repeat=2"]
    ended = ctr_client(f"--address={ctr.address}", *flags)
    assert ended.returncode == 0, ended.stderr
    assert [line.split("\t")[0] for line in ended.stdout.splitlines()] == list("0123456")


def test_command_line_reads_predictors_prototxt(ctr: Ctr, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "predictors.prototxt"
    path.write_text(PREDICTORS.read_text().replace("127.0.0.1:8010", ctr.address))
    ended = ctr_client(f"--conf={path}", f"--data={data}")
    assert (ended.returncode, len(ended.stdout.splitlines())) == (0, 7), ended.stderr


def test_command_line_tells_the_variants(ctr: Ctr, data: Path, tmp_path: Path) -> None:
    path = two_variants(tmp_path, "1|1")
    text = path.read_text().replace("127.0.0.1:8010", ctr.address)
    path.write_text(text.replace("h1:1,h2:2", ctr.address))
    flags = [f"--conf={path}", f"--data={data}", "--batch_size=1", "--repeat=5"]
    ended = ctr_client(*flags, "--enable_profiling")
    counts = dict(re.findall(r"^Variant (\w+): (\d+) requests$", ended.stderr, re.MULTILINE))
    assert set(counts) == {"var1", "var2"}, ended.stderr
    assert sum(map(int, counts.values())) == 35
    ended = ctr_client(*flags, "--variant=var2")
    assert (ended.returncode, "Variant" in ended.stderr) == (0, False), ended.stderr
    ended = ctr_client(*flags, "--variant=var3")
    assert ended.returncode == 2
    assert "--variant: 'var3' is none of var1, var2" in ended.stderr


def test_command_line_names_what_is_wrong(data: Path, tmp_path: Path) -> None:
    with data.open("a") as file:
        file.write("1\t2\n")
    address = closed_address()
    for flags, message in [
        ([f"--data={data}", "--limit=7"], f"{address}: no connection"),
        ([f"--data={tmp_path}/none.tsv"], "none.tsv"),
        ([f"--data={data}", "--protocol=x"], "'x' is none of baidu_std, grpc, http"),
        ([f"--data={data}", "--batch_size=8"], f"{data}:8: 2 fields"),
    ]:
        ended = ctr_client(f"--address={address}", *flags)
        assert ended.returncode == 2
        assert message in ended.stderr
        assert "Traceback" not in ended.stderr


def test_http_tells_how_long_the_caller_waits() -> None:
    heads: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        heads.append(connection.recv(1 << 16))
        connection.sendall(
            b"HTTP/1.1 504 Gateway Timeout\r\nx-bd-error-code: 1008\r\n"
            b"content-length: 4\r\n\r\nlate"
        )

    with (
        peer(talk) as address,
        CtrClient(address, "http", timeout_ms=2500) as client,
        pytest.raises(RpcError, match="late") as raised,
    ):
        client.predict(*requests_of(1))
    assert raised.value.code == 1008
    (told,) = re.findall(rb"x-bd-timeout-ms: (\d+)\r\n", heads[0])
    assert 2000 <= int(told) <= 2500
