"""Downloads of tables: verified before they are in place, and nothing left when they fail."""

from __future__ import annotations

import http.server
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.server.tables import TABLE_NAME, make_table, place_table
from tests.waiting import wait_until


class FileHost(http.server.ThreadingHTTPServer):
    """Serves bytes by path; a path in `held` is answered, but for its first byte, when released."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _FileHandler)
        self.files: dict[str, bytes] = {}
        self.announced_bytes: dict[str, int] = {}
        self.requests: list[str] = []
        self.held: set[str] = set()
        self.released = threading.Event()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A server that stops amid a download is no news."""


class _FileHandler(http.server.BaseHTTPRequestHandler):
    server: FileHost

    def do_GET(self) -> None:
        host = self.server
        host.requests.append(self.path)
        body = host.files.get(self.path)
        self.send_response(200 if body is not None else 404)
        body = body or b""
        self.send_header("content-length", str(host.announced_bytes.get(self.path, len(body))))
        self.end_headers()
        self.wfile.write(body[:1])
        if self.path in host.held:
            host.released.wait(20)
        self.wfile.write(body[1:])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def host() -> Iterator[FileHost]:
    with FileHost() as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield host
        host.released.set()
        host.shutdown()
        thread.join()


@pytest.fixture
def role(tmp_path: Path, data_dir: Path) -> Iterator[Role]:
    arguments = ["--port=0", "--data_dir=data", "--dict_name=test_dict", "--shard=0"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        yield role


@pytest.fixture
def client(role: Role) -> Iterator[ServerClient]:
    with ServerClient(role) as client:
        yield client


@pytest.fixture
def order(tmp_path: Path, host: FileHost) -> dict[str, Any]:
    """A right order for pass 1, and the host has the file."""
    report = make_table(tmp_path / "built.table", 1)
    host.files["/t"] = (tmp_path / "built.table").read_bytes()
    return {
        "version": "1_1",
        "url": host.url("/t"),
        "size": report.file_bytes,
        "crc32c": report.crc32c,
    }


def test_downloads_once_and_serves_it(
    client: ServerClient, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    for _ in range(2):
        assert client.state("download", **order) == ("", "", 0)
    assert host.requests == ["/t"], "what is there and right is not fetched again"
    assert (data_dir / "1_1" / TABLE_NAME).read_bytes() == host.files["/t"]
    assert [path.name for path in (data_dir / "1_1").iterdir()] == [TABLE_NAME]
    assert client.state("bg_load_base", version="1_1") == ("", "1_1", 2)
    assert client.state("bg_switch", version="1_1") == ("1_1", "", 0)
    verified = client.command("verify", version="1_1").json()
    assert (verified["version"], verified["file_bytes"]) == ("1_1", order["size"])


def test_replaces_a_damaged_file(
    client: ServerClient, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    path = place_table(data_dir, 1)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    client.state("download", **order)
    assert path.read_bytes() == host.files["/t"]


def refused(client: ServerClient, data_dir: Path, order: dict[str, Any]) -> str:
    """The answer to an order that must fail, leaving nothing."""
    response = client.command("download", **order)
    assert response.status_code == 500
    assert list(data_dir.iterdir()) == []
    assert order["version"] in response.text
    return response.text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"crc32c": 1}, "not crc32c=1"),
        ({"size": 100}, "is longer than size=100"),
        ({"size": 1 << 40}, "not size=1099511627776"),
        ({"version": "2_2"}, "version is '1_1', expected '2_2'"),
    ],
)
def test_files_that_are_not_what_was_ordered(
    client: ServerClient,
    data_dir: Path,
    order: dict[str, Any],
    changes: dict[str, Any],
    reason: str,
) -> None:
    text = refused(client, data_dir, {**order, **changes})
    assert reason in text
    assert order["url"] in text


@pytest.mark.parametrize(
    "table", [{"dict_name": "other"}, {"shard": 1, "shard_num": 2}], ids=["dict_name", "shard"]
)
def test_tables_of_another_dict_or_shard(
    client: ServerClient, data_dir: Path, tmp_path: Path, host: FileHost, table: dict[str, Any]
) -> None:
    report = make_table(tmp_path / "other.table", 1, **table)
    host.files["/other"] = (tmp_path / "other.table").read_bytes()
    order = {"version": "1_1", "url": host.url("/other"), "size": report.file_bytes}
    text = refused(client, data_dir, {**order, "crc32c": report.crc32c})
    assert f"{next(iter(table))} is" in text


def test_truncated_answers(
    client: ServerClient, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    host.announced_bytes["/t"] = order["size"]
    host.files["/t"] = host.files["/t"][:-10]
    assert order["url"] in refused(client, data_dir, order)


def test_a_file_that_is_no_table(
    client: ServerClient, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    host.files["/t"] = b"123456789"
    text = refused(client, data_dir, {**order, "size": 9, "crc32c": 0xE3069283})
    assert order["url"] in text


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/t", "ConnectError"),
        ("file:///etc/passwd", "only http"),
        ("/etc/passwd", "only http"),
        ("http://[", "http://["),
    ],
)
def test_addresses_that_give_nothing(
    client: ServerClient, data_dir: Path, order: dict[str, Any], url: str, reason: str
) -> None:
    assert reason in refused(client, data_dir, {**order, "url": url})


def test_a_table_over_the_limit_is_not_asked_for(
    tmp_path: Path, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    size_max = order["size"] - 1
    arguments = ["--port=0", "--data_dir=data", "--shard=0", f"--download_bytes_max={size_max}"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        text = refused(client, data_dir, order)
        assert f"size={order['size']} is over --download_bytes_max={size_max}" in text
        assert host.requests == []


def test_not_found(client: ServerClient, data_dir: Path, host: FileHost, order: Any) -> None:
    assert "HTTP 404" in refused(client, data_dir, {**order, "url": host.url("/nope")})


def test_orders_that_lack_a_field(
    client: ServerClient, data_dir: Path, order: dict[str, Any]
) -> None:
    for field, value in itertools.product(order, (None, True, [1], "")):
        response = client.command("download", **{**order, field: value})
        assert response.status_code == 500
        assert field in response.text
        assert list(data_dir.iterdir()) == []


def test_the_same_order_joins_the_one_under_way(
    client: ServerClient, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    host.held.add("/t")
    states: list[object] = []

    def ask() -> None:
        with ServerClient.to(client.endpoint) as own:
            states.append(own.state("download", **order))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_until(lambda: host.requests, what="a download under way")
    response = client.command("download", **{**order, "crc32c": 1})
    assert response.status_code == 500
    assert "is being downloaded" in response.text
    assert client.state("status") == ("", "", 0), "a download under way holds up nothing"
    host.released.set()
    for thread in threads:
        thread.join()
    assert (len(states), host.requests) == (3, ["/t"])


def test_a_stop_ends_the_download_under_way(
    role: Role, client: ServerClient, data_dir: Path, host: FileHost, order: dict[str, Any]
) -> None:
    host.held.add("/t")
    failures: list[Exception] = []

    def ask() -> None:
        body = json.dumps({"cmd": "download", **order})
        try:
            url = f"http://{client.endpoint}/ControlService/cmd"
            httpx.post(url, content=body, timeout=20, trust_env=False)
        except httpx.HTTPError as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    wait_until(lambda: host.requests, what="a download under way")
    role.process.terminate()
    wait_until(lambda: "stops" in role.log(), what="the server stops")
    host.released.set()
    assert role.stop() == 0
    thread.join()
    assert list(data_dir.iterdir()) == []
