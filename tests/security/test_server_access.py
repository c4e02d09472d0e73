"""Who may command a shard server, over every wire."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from cube_core._native import encode_request_frame, parse_frames
from cube_core.access import Access, Asker, Right
from cube_core.errors import AccessError, ConfError, RoleError
from cube_proto import baidu_rpc_meta_pb2, control_pb2
from tests.processes import Role, running
from tests.server.tables import place_table

READ, OPERATE = "token-to-read", "token-to-operate"
HERE, ELSEWHERE = "127.0.0.1:5", "10.1.2.3:5"


@pytest.mark.parametrize(
    ("access", "asker", "right"),
    [
        (Access(), Asker(HERE), Right.OPERATE),
        (Access(), Asker("[::1]:5"), Right.OPERATE),
        (Access(), Asker(ELSEWHERE), Right.NOTHING),
        (Access(), Asker(ELSEWHERE, "x"), Right.NOTHING),
        (Access(), Asker("unknown"), Right.NOTHING),
        (Access(READ, OPERATE), Asker(HERE), Right.NOTHING),
        (Access(READ, OPERATE), Asker(HERE, READ), Right.READ),
        (Access(READ, OPERATE), Asker(ELSEWHERE, READ), Right.READ),
        (Access(READ, OPERATE), Asker(ELSEWHERE, OPERATE), Right.OPERATE),
        (Access(READ, OPERATE), Asker(ELSEWHERE, OPERATE + "x"), Right.NOTHING),
        (Access("", OPERATE), Asker(HERE), Right.READ),
        (Access("", OPERATE), Asker(ELSEWHERE), Right.NOTHING),
        (Access(READ, ""), Asker(ELSEWHERE, READ), Right.READ),
        (Access(READ, ""), Asker(HERE), Right.OPERATE),
    ],
)
def test_what_an_asker_may_do(access: Access, asker: Asker, right: Right) -> None:
    assert access.right_of(asker) is right


def test_refusals_say_what_is_needed_and_never_a_token(caplog: pytest.LogCaptureFixture) -> None:
    access = Access(READ, OPERATE)
    with caplog.at_level(logging.INFO, "cube.audit"):
        with pytest.raises(RoleError, match="operate token") as role:
            access.require(Asker(ELSEWHERE, READ), Right.OPERATE, "enable 1_1")
        with pytest.raises(AccessError, match="Authorization") as wrong:
            access.require(Asker(ELSEWHERE, "guess"), Right.OPERATE, "enable 1_1")
        with pytest.raises(AccessError, match="CUBE_OPERATE_TOKEN"):
            Access().require(Asker(ELSEWHERE), Right.OPERATE, "enable 1_1")
    for text in (str(role.value), str(wrong.value), caplog.text):
        assert not any(secret in text for secret in (READ, OPERATE, "guess"))
    assert f"who={ELSEWHERE} token=True what=enable 1_1 result=refused" in caplog.text


def test_tokens_come_from_files_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUBE_READ_TOKEN", READ)
    file = tmp_path / "token"
    file.write_text(f"{OPERATE}\n")
    assert Access.read("", str(file)) == Access(READ, OPERATE)
    file.write_text("short")
    with pytest.raises(ConfError, match="TOKEN_BYTES_MIN"):
        Access.read("", str(file))
    for text in (f"{OPERATE}\n{READ}\n", f"{OPERATE}ü"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfError, match=r"operate_token_file: .* printable ASCII") as refused:
            Access.read("", str(file))
        assert OPERATE not in str(refused.value)
    with pytest.raises(ConfError, match="operate_token_file"):
        Access.read("", str(tmp_path / "nowhere"))


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Role]:
    directory = tmp_path_factory.mktemp("access")
    place_table(directory / "data", 10)
    (directory / "data" / "VERSION").write_text("10_10")
    for name, token in (("read", READ), ("operate", OPERATE)):
        (directory / name).write_text(token)
    with running(
        "cube_server.main",
        [
            "--port=0", "--grpc_port=0", "--data_dir=data", f"--workers={request.param}",
            "--read_token_file=read", "--operate_token_file=operate",
        ],
        cwd=directory,
    ) as role:  # fmt: skip
        yield role


def over_http(server: Role, command: dict[str, str], token: str) -> tuple[int, str]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    url = f"http://127.0.0.1:{server.port()}/ControlService/cmd"
    answer = httpx.post(url, json=command, headers=headers, trust_env=False)
    return answer.status_code, answer.text


def test_http(server: Role) -> None:
    status, enable = {"cmd": "status"}, {"cmd": "enable", "version": "10_10"}
    assert over_http(server, status, "")[0] == 401
    assert over_http(server, status, READ)[0] == 200
    assert over_http(server, enable, READ)[0] == 403
    assert over_http(server, enable, "wrong")[0] == 401
    code, text = over_http(server, enable, OPERATE)
    assert (code, json.loads(text)["cur_version"]) == (200, "10_10")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_page_of_another_site_cannot_use_that_a_browser_is_here(
    tmp_path: Path, workers: int
) -> None:
    place_table(tmp_path / "data", 10)
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", f"--workers={workers}"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        httpx.Client(base_url=f"http://127.0.0.1:{role.port()}", trust_env=False) as client,
    ):
        port = role.port()
        pages = {
            "https://evil.example": 401,
            "null": 401,
            f"http://127.0.0.1:{port + 1}": 401,
            f"http://127.0.0.1:{port}": 200,
            "http://[": 401,
        }
        command = json.dumps({"cmd": "enable", "version": "10_10"}).encode()
        for page, code in pages.items():
            answer = client.post("/ControlService/cmd", content=command, headers={"origin": page})
            assert answer.status_code == code, page
        # A name of somebody else's that was made to lead to this machine.
        names = {"evil.example": 401, "localhost": 200}
        for name, code in names.items():
            headers = {"host": f"{name}:{port}", "origin": f"http://{name}:{port}"}
            answer = client.post("/ControlService/cmd", content=command, headers=headers)
            assert answer.status_code == code, name
        assert "who=page of https://evil.example at 127.0.0.1:" in role.log()


def test_pages_need_the_read_token_and_probes_none(server: Role) -> None:
    url = f"http://127.0.0.1:{server.port()}"
    with httpx.Client(trust_env=False) as client:
        for path in ("/status", "/metrics", "/vars", "/vars/request_num"):
            assert client.get(url + path).status_code == 401
            authorized = client.get(url + path, headers={"authorization": f"Bearer {READ}"})
            assert authorized.status_code == 200
        for path in ("/live", "/health", "/ready"):
            assert client.get(url + path).status_code == 200


def test_grpc(server: Role) -> None:
    request = control_pb2.ControlRequest(json='{"cmd":"enable","version":"10_10"}')
    with grpc.insecure_channel(f"127.0.0.1:{server.port('grpc_port')}") as channel:
        command = channel.unary_unary("/rec.mcube.ControlService/cmd", None, None)
        for token, code in (
            ("wrong", grpc.StatusCode.UNAUTHENTICATED),
            (READ, grpc.StatusCode.PERMISSION_DENIED),
        ):
            metadata = (("authorization", f"Bearer {token}"),)
            with pytest.raises(grpc.RpcError) as refused:
                command(request.SerializeToString(), metadata=metadata, timeout=10)
            assert refused.value.code() is code
        metadata = (("authorization", f"Bearer {OPERATE}"),)
        answer = command(request.SerializeToString(), metadata=metadata, timeout=10)
    assert json.loads(control_pb2.ControlResponse.FromString(answer).json)["status"] == 0


def test_baidu_std_shows_its_credential_once_a_connection(server: Role) -> None:
    command = json.dumps({"cmd": "enable", "version": "10_10"}).encode()

    def frame(number: int, token: str = "") -> bytes:
        plain = encode_request_frame("ControlService", "cmd", number, b"", attachment=command)
        meta_bytes = int.from_bytes(plain[8:12], "big")
        meta = baidu_rpc_meta_pb2.RpcMeta.FromString(plain[12 : 12 + meta_bytes])
        if token:
            meta.authentication_data = token.encode()
        head = meta.SerializeToString()
        rest = plain[12 + meta_bytes :]
        sizes = (len(head) + len(rest)).to_bytes(4, "big") + len(head).to_bytes(4, "big")
        return b"PRPC" + sizes + head + rest

    def codes(*frames: bytes) -> list[int]:
        answered = []
        with socket.create_connection(("127.0.0.1", server.port()), timeout=10) as connection:
            for each in frames:
                connection.sendall(each)
                received = b""
                while not (frames_whole := parse_frames(received, 1 << 20)[0]):
                    received += connection.recv(1 << 16)
                answered += frames_whole
        return [each.error_code for each in answered]

    assert codes(frame(1)) == [1004]
    assert codes(frame(1, READ)) == [1004]
    assert codes(frame(1, OPERATE), frame(2)) == [0, 0]


def test_who_did_what_is_in_the_log(server: Role) -> None:
    over_http(server, {"cmd": "enable", "version": "10_10"}, OPERATE)
    over_http(server, {"cmd": "enable", "version": "99_99"}, OPERATE)
    log = server.log()
    assert "cube.audit" in log
    assert "what=enable 10_10 result=done" in log
    assert "what=enable 99_99 result=failed: " in log
    assert not any(secret in log for secret in (READ, OPERATE))
