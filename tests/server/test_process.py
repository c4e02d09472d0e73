"""The process: its command line, how fast it starts, how it ends."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cube_core._native import encode_request_frame, parse_frames
from cube_proto import dict_pb2
from tests.processes import running
from tests.server.client import TIMEOUT_S, ServerClient, receive_all
from tests.server.tables import place_table

READY_S_MAX = 1.0


def run(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cube_server.main", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_has_an_example(tmp_path: Path) -> None:
    result = run(tmp_path, "--help")
    assert result.returncode == 0
    assert "cube-server --flagfile=conf/gflags.conf" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    "argument",
    [
        "--port=65536",
        "--port=x",
        "--grpc_port=-2",
        "--keep_versions=0",
        "--keys_per_request_max=0",
        "--in_mem=maybe",
        "--dict_name=../x",
        "--nope=1",
        "--flagfile=nope.conf",
        "extra",
    ],
)
def test_wrong_usage_exits_with_2_and_names_it(tmp_path: Path, argument: str) -> None:
    result = run(tmp_path, "--port=0", argument)
    assert result.returncode == 2
    assert argument.partition("=")[0].lstrip("-") in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("flag", ["--port", "--grpc_port"])
def test_a_port_in_use_exits_with_2(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run(tmp_path, "--port=0", "--grpc_port=0", f"{flag}={port}")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(f"error: command line: {flag}: ")
    assert str(port) in result.stderr


def test_a_data_directory_that_is_a_file_exits_with_2(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    for data_dir in ("data", "data/0"):
        result = run(tmp_path, "--port=0", f"--data_dir={data_dir}")
        assert result.returncode == 2
        assert data_dir in result.stderr


def test_takes_the_flagfile_of_the_original(tmp_path: Path) -> None:
    flags = "--port=0\n--dict_split=1\n--in_mem=true\n--log_dir=./log/\n--bthread_concurrency=4\n"
    (tmp_path / "gflags.conf").write_text(flags)
    with (
        running("cube_server.main", ["-flagfile=gflags.conf"], cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        assert client.http.get("/live").text == "OK"
        assert "bthread_concurrency" in role.log()
    assert "stops" in (tmp_path / "log" / "cube-server.0.log").read_text()


def test_without_grpc(tmp_path: Path) -> None:
    arguments = ["--port=0", "--grpc_port=-1"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        assert "grpc_port=none" in role.ready_line
        assert client.http.get("/live").text == "OK"


def test_is_ready_within_a_second(tmp_path: Path) -> None:
    """Best of three, without the time for which others had the processors."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        with running("cube_server.main", ["--port=0"], cwd=tmp_path) as role:
            elapsed_s = time.perf_counter() - started
            seconds.append(elapsed_s - waited_s(role.process.pid))
    assert min(seconds) < READY_S_MAX


def waited_s(pid: int) -> float:
    """For how long the main thread of a process could have run, and none was free for it."""
    _, waited_ns, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(waited_ns) / 1e9


def test_imports_no_other_part_and_nothing_heavy() -> None:
    code = (
        "import sys, cube_server.server, cube_server.app, cube_core.wire.grpc_server\n"
        "import cube_core.wire.http_connection\n"
        "print(*sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    imported = {name.partition(".")[0] for name in result.stdout.split()}
    assert "cube_server" in imported
    others = {"paddle", "pyspark", "pyarrow", "cube_api", "cube_builder", "cube_transfer"}
    assert not imported & {*others, "ctr_serving"}


def test_a_stop_answers_what_is_under_way(tmp_path: Path) -> None:
    """A seek that takes a while is answered whole after SIGTERM, and then the process ends."""
    place_table(tmp_path / "data", 1)
    (tmp_path / "data" / "VERSION").write_text("1_1")
    key_count = 1_000_000
    payload = dict_pb2.DictRequest(keys=[7] * key_count).SerializeToString()
    frame = encode_request_frame("DictService", "seek", 1, payload)
    with (
        running("cube_server.main", ["--port=0", "--data_dir=data"], cwd=tmp_path) as role,
        socket.create_connection(("127.0.0.1", role.port()), TIMEOUT_S) as connection,
        socket.create_connection(("127.0.0.1", role.port()), TIMEOUT_S) as idle,
    ):
        connection.sendall(frame)
        # The answer begins: the request was taken, and most of the answer waits for its reader.
        begun = connection.recv(12)
        role.process.terminate()
        frames, _, _ = parse_frames(begun + receive_all(connection), 1 << 30)
        assert len(dict_pb2.DictResponse.FromString(bytes(frames[0].payload)).values) == key_count
        assert receive_all(idle) == b""
        assert role.process.wait(TIMEOUT_S) == 0
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", role.port()), TIMEOUT_S)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_data_directory_is_of_one_server(tmp_path: Path, workers: int) -> None:
    arguments = ["--port=0", "--grpc_port=-1", f"--workers={workers}"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        second = run(tmp_path, *arguments)
        assert second.returncode == 2
        assert f"is in use by another cube-server (pid {role.process.pid})" in second.stderr
        role.process.kill()
        role.process.wait()
        with running("cube_server.main", arguments, cwd=tmp_path) as again:
            assert "port=" in again.ready_line
