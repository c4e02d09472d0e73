"""Without an operate token this machine may command; a proxy on it, or a name that was made to lead
to it, makes nobody else local."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from cube_proto import control_pb2
from tests.ctr.service import ctr_running, write_conf
from tests.processes import Role, running
from tests.server.tables import DICT_NAME, place_table

FORWARDED = [
    {"forwarded": "for=127.0.0.1"},
    {"x-forwarded-for": "127.0.0.1"},
    {"X-Forwarded-Host": "localhost"},
    {"x-forwarded-proto": "http"},
    {"x-real-ip": "127.0.0.1"},
    {"via": "1.1 proxy"},
]
ELSEWHERE = [
    {"host": "evil.example"},
    {"host": "evil.example:{port}"},
    {"host": "10.1.2.3:{port}"},
    {"host": "localhost.evil.example"},
    {"host": ""},
    {"host": "["},
]
HERE = [
    {},
    {"host": "localhost"},
    {"host": "LOCALHOST:{port}"},
    {"host": "127.0.0.1:{port}"},
    {"host": "[::1]:{port}"},
    {"host": "127.0.0.2"},
]
CASES = [
    *((headers, False) for headers in FORWARDED + ELSEWHERE),
    *((headers, True) for headers in HERE),
]

Command = tuple[str, dict[str, str]]


@contextlib.contextmanager
def shard_server(directory: Path, *flags: str) -> Iterator[tuple[Role, Command]]:
    place_table(directory / "data", 10)
    (directory / "data" / "VERSION").write_text("10_10")
    arguments = ["--port=0", "--grpc_port=0", "--data_dir=data", *flags]
    with running("cube_server.main", arguments, cwd=directory) as role:
        yield role, ("/ControlService/cmd", {"cmd": "enable", "version": "10_10"})


@contextlib.contextmanager
def daemon(directory: Path, *flags: str) -> Iterator[tuple[Role, Command]]:
    (directory / "base.txt").touch()
    lines = [
        "[default]",
        f"dict_name: {DICT_NAME}",
        "wget_port: 8098",
        f"donefile_address: {directory}",
        f"output_address: {directory / 'output'}",
        f"tmp_address: {directory / 'tmp'}",
        "shard_num: 1",
        "copy_num: 1",
        "[cube_agent]",
        "cube0_0: 127.0.0.1:1:./x",
    ]
    (directory / "transfer.conf").write_text("\n".join([*lines, ""]))
    arguments = ["--config=transfer.conf", "--port=0", *flags]
    with running("cube_transfer.main", arguments, cwd=directory) as role:
        yield role, ("/control/pause", {})


Start = Callable[..., contextlib.AbstractContextManager[tuple[Role, Command]]]
ROLES = {
    "cube-server": (shard_server, ()),
    "cube-server of two workers": (shard_server, ("--workers=2",)),
    "cube-transfer": (daemon, ()),
}


@pytest.fixture(scope="module", params=ROLES)
def commanded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Role, Command]]:
    start, flags = ROLES[request.param]
    with pytest.MonkeyPatch.context() as patch:
        # What uvicorn would believe a proxy from.
        patch.setenv("FORWARDED_ALLOW_IPS", "*")
        with start(tmp_path_factory.mktemp("proxies"), *flags) as running_role:
            yield running_role


@pytest.mark.parametrize(
    ("headers", "is_local"),
    CASES,
    ids=[":".join(*headers.items()) if headers else "none" for headers, _ in CASES],
)
def test_who_counts_as_local(
    commanded: tuple[Role, Command], headers: dict[str, str], is_local: bool
) -> None:
    role, (path, body) = commanded
    sent = {name: value.format(port=role.port()) for name, value in headers.items()}
    answer = httpx.post(
        f"http://127.0.0.1:{role.port()}{path}", json=body, headers=sent, trust_env=False
    )
    assert answer.status_code == (200 if is_local else 401), answer.text
    if not is_local:
        assert "from this machine only" in answer.text
        assert "CUBE_OPERATE_TOKEN" in answer.text


def test_the_log_tells_a_proxy_from_its_address(commanded: tuple[Role, Command]) -> None:
    role, (path, body) = commanded
    url = f"http://127.0.0.1:{role.port()}{path}"
    httpx.post(url, json=body, headers={"x-real-ip": "10.0.0.9"}, trust_env=False)
    httpx.post(url, json=body, headers={"host": "evil.example"}, trust_env=False)
    assert "who=proxy at 127.0.0.1:" in role.log()
    assert "who=caller of evil.example at 127.0.0.1:" in role.log()


@pytest.mark.parametrize("headers", FORWARDED, ids=[next(iter(each)) for each in FORWARDED])
def test_proxies_of_grpc_are_not_local(
    servers_of_grpc: Callable[[tuple[tuple[str, str], ...]], grpc.StatusCode],
    headers: dict[str, str],
) -> None:
    assert servers_of_grpc(()) is grpc.StatusCode.OK
    metadata = tuple((name.lower(), value) for name, value in headers.items())
    assert servers_of_grpc(metadata) is grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture(scope="module")
def servers_of_grpc(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[tuple[tuple[str, str], ...]], grpc.StatusCode]]:
    """Status of a command over gRPC, by its metadata."""
    with shard_server(tmp_path_factory.mktemp("grpc")) as (role, (_, body)):
        request = control_pb2.ControlRequest(json=json.dumps(body)).SerializeToString()
        with grpc.insecure_channel(f"127.0.0.1:{role.port('grpc_port')}") as channel:
            command = channel.unary_unary("/rec.mcube.ControlService/cmd", None, None)

            def status(metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
                try:
                    command(request, metadata=metadata, timeout=10)
                except grpc.RpcError as error:
                    return error.code()
                return grpc.StatusCode.OK

            yield status


@pytest.mark.parametrize("start", [shard_server, daemon], ids=["cube-server", "cube-transfer"])
def test_with_a_token_a_proxy_is_asked_for_it(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBE_OPERATE_TOKEN", "token-to-operate")
    with start(tmp_path) as (role, (path, body)):
        url = f"http://127.0.0.1:{role.port()}{path}"
        headers = {"x-forwarded-for": "10.1.2.3", "host": "cube.example"}
        assert httpx.post(url, json=body, headers=headers, trust_env=False).status_code == 401
        headers["authorization"] = "Bearer token-to-operate"
        assert httpx.post(url, json=body, headers=headers, trust_env=False).status_code == 200


def test_a_predictor_shows_pages_to_this_machine_and_to_no_proxy_on_it(tmp_path: Path) -> None:
    write_conf(tmp_path, [1, 2])
    (tmp_path / "token").write_text("token-to-read")
    with ctr_running(tmp_path, "--read_token_file=token") as ctr:
        assert ctr.get("/status").status_code == 200
        for headers in (FORWARDED + ELSEWHERE)[:-1]:
            answer = httpx.get(f"http://{ctr.address}/status", headers=headers, trust_env=False)
            assert answer.status_code == 401, headers
