"""Several processes that share one port and one copy of each table."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from cube_core._native import Table
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError, LimitError
from cube_core.versions import Version
from cube_core.wire.held_port import hold_port
from cube_core.worker_channel import (
    DESCRIPTORS_MAX,
    MESSAGE_BYTES_MAX,
    Channel,
    channel_pair,
    start_worker,
)
from cube_proto import dict_pb2
from cube_server.fleet import Fleet
from cube_server.loaded import LoadedTable
from cube_server.settings import ServerSettings
from tests.processes import Role, running
from tests.server.client import TIMEOUT_S, ServerClient, rows_in
from tests.server.tables import KEY_COUNT, place_table, rows_of
from tests.waiting import wait_until

WORKERS = 2


def worker_pids(role: Role) -> list[int]:
    """Live children of the server, in the order of their start."""
    children = Path(f"/proc/{role.process.pid}/task/{role.process.pid}/children").read_text()
    return [int(pid) for pid in children.split()]


def two_passes(data_dir: Path) -> None:
    for base in (1, 2):
        place_table(data_dir, base)
    (data_dir / "VERSION").write_text("1_1")


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    two_passes(tmp_path / "data")
    arguments = ["--port=0", "--data_dir=data", f"--workers={WORKERS}"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        yield role


@contextlib.contextmanager
def client_of_each_worker(role: Role) -> Iterator[list[ServerClient]]:
    """Connections to every worker, told apart by who holds the other end."""
    with contextlib.ExitStack() as stack:
        clients: dict[int, ServerClient] = {}

        def has_all() -> bool:
            client = stack.enter_context(ServerClient(role))
            client.seek([1])
            assert client._prpc is not None
            pid = owner(role, client)
            clients.setdefault(pid, client)
            return len(clients) == WORKERS

        wait_until(has_all, TIMEOUT_S, "a connection to every worker")
        yield list(clients.values())


def owner(role: Role, client: ServerClient) -> int:
    """The worker that serves a client's baidu_std connection."""
    connection = client._prpc
    assert connection is not None
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        local_port = same.getsockname()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote, inode = fields[1], fields[2], fields[9]
        if int(local[-4:], 16) == role.port() and int(remote[-4:], 16) == local_port:
            for pid in worker_pids(role):
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        if str(link.readlink()) == f"socket:[{inode}]":
                            return pid
    raise AssertionError("nobody holds the connection")


def test_every_worker_answers_from_one_copy(role: Role) -> None:
    assert f"workers={WORKERS}" in role.ready_line
    assert "version=1_1" in role.ready_line
    with client_of_each_worker(role) as clients:
        for client in clients:
            assert (rows_in(client.seek([3, 5])) == rows_of_keys([3, 5], 1)).all()
    for pid in worker_pids(role):
        maps = Path(f"/proc/{pid}/maps").read_text()
        shared = [line for line in maps.splitlines() if "cube-table" in line]
        assert [line.split()[1] for line in shared] == ["r--s"]


def rows_of_keys(keys: list[int], base: int) -> NDArray[np.float32]:
    return rows_of(np.array(keys, dtype=np.uint64), base)


def test_a_command_is_answered_when_all_workers_have_done_it(role: Role) -> None:
    with client_of_each_worker(role) as clients:
        first, other = clients
        for base in (2, 1, 2, 1):
            assert first.state("enable", version=f"{base}_{base}")[0] == f"{base}_{base}"
            for client in clients:
                assert (rows_in(client.seek([7])) == rows_of_keys([7], base)).all()
        for client in clients:
            pinned = client.seek([7], version="2_2", version_required=True)
            assert pinned.version == "2_2"
        assert other.command("enable", version="9_9").status_code == 500
        assert other.command("nope").status_code == 500
        assert other.http.post("/ControlService/cmd", content=b"[").status_code == 400
        over_prpc = other.call("ControlService", "cmd", b"", attachment=b'{"cmd":"status"}')
        assert b'"cur_version":"1_1"' in bytes(over_prpc.attachment)


def test_counts_are_added_up(role: Role) -> None:
    with client_of_each_worker(role) as clients:
        before = clients[0].status()["counters"]
        for client in clients:
            client.seek([1, 2, KEY_COUNT + 5])
        for client in clients:
            after = client.status()["counters"]
            assert after["requests"] - before["requests"] == 2
            assert after["keys"] - before["keys"] == 6
            assert after["missing_keys"] - before["missing_keys"] == 2
            assert after["connections"] >= WORKERS
        text = clients[1].http.get("/metrics").text
        assert re.search(r"^cube_server_seek_requests_total \d", text, re.MULTILINE)
        assert clients[1].http.get("/ready").text == "OK"


def test_grpc_is_served_beside_the_workers(role: Role) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{role.port('grpc_port')}") as channel:
        seek = channel.unary_unary(
            "/rec.mcube.DictService/seek",
            request_serializer=dict_pb2.DictRequest.SerializeToString,
            response_deserializer=dict_pb2.DictResponse.FromString,
        )
        response = seek(dict_pb2.DictRequest(keys=[1, 2]), timeout=TIMEOUT_S)
    assert len(response.values) == 2


def test_a_worker_that_dies_is_started_again_with_what_the_others_serve(role: Role) -> None:
    with client_of_each_worker(role) as clients:
        clients[0].state("enable", version="2_2")
        requests = clients[0].status()["counters"]["requests"]
        survivor_pid, killed_pid = owner(role, clients[0]), owner(role, clients[1])
        os.kill(killed_pid, signal.SIGKILL)
        assert clients[0].seek([1]).values[0].status == 0

        def restarted() -> bool:
            pids = worker_pids(role)
            return len(pids) == WORKERS and survivor_pid in pids and killed_pid not in pids

        wait_until(restarted, TIMEOUT_S)
        wait_until(lambda: clients[0].status()["counters"]["worker_restarts"] == 1, TIMEOUT_S)
        assert clients[0].status()["counters"]["requests"] >= requests
    with client_of_each_worker(role) as clients:
        for client in clients:
            assert (rows_in(client.seek([9])) == rows_of_keys([9], 2)).all()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_that_cannot_be_made_is_told_and_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a server and of a predictor: both try again when they are told so."""

    def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    descriptors = open_files()
    monkeypatch.setattr("subprocess.Popen", fail)
    with pytest.raises(ConfError, match=r"--workers: no worker starts: .*temporarily unavailable"):
        start_worker("ctr_serving.worker")
    assert open_files() == descriptors


async def test_a_worker_is_started_again_although_that_failed_at_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine that is out of memory ends a worker, and has none for another process yet."""
    start = subprocess.Popen
    failures = iter([OSError(errno.ENOMEM, "Cannot allocate memory")] * 2)

    def start_or_fail(*arguments: Any, **options: Any) -> Any:
        if (failure := next(failures, None)) is not None:
            raise failure
        return start(*arguments, **options)

    with hold_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        fleet = Fleet(ServerSettings(workers=1), ["test_dict"], port, unasked)
        await fleet.start()
        try:
            descriptors = open_files()
            monkeypatch.setattr("subprocess.Popen", start_or_fail)
            [worker] = fleet._workers
            worker.process.kill()
            await asyncio.to_thread(worker.process.wait)
            await asyncio.to_thread(
                wait_until, lambda: fleet._workers not in ([], [worker]), 2 * TIMEOUT_S
            )
            assert open_files() == descriptors
        finally:
            await fleet.drain(5)


async def test_a_worker_takes_more_tables_than_come_with_one_message(tmp_path: Path) -> None:
    """As many versions as stay after runs of patches of several dicts."""
    path = str(place_table(tmp_path, 1))

    def opened() -> LoadedTable:
        table = Table.open(path, shared=True)
        return LoadedTable.of_whole(Version.parse("1"), table, 0.0)

    current, *others = (opened() for _ in range(2 * DESCRIPTORS_MAX + 1))
    with hold_port("127.0.0.1", 0) as holder:
        port = holder.getsockname()[1]
        fleet = Fleet(ServerSettings(workers=1), ["test_dict"], port, unasked)
        await fleet.start()
        try:
            await fleet.publish("test_dict", current, others)
            with ServerClient.to(Endpoint("127.0.0.1", port)) as client:
                answer = await asyncio.to_thread(client.seek, [9], version="1_1")
            assert (rows_in(answer) == rows_of_keys([9], 1)).all()
            assert "worker_restarts" not in await fleet.counts()
        finally:
            await fleet.drain(5)


async def test_an_answer_over_the_limit_of_a_message_is_an_error() -> None:
    """Such as the state of a hundred dicts: who asks for it must not wait for ever."""

    async def answer(what: str, body: dict[str, Any], descriptors: list[int]) -> str:
        return "x" * int(body["size"])

    asks, answers = (Channel(end, answer) for end in channel_pair())
    try:
        with pytest.raises(LimitError, match=f"over the {MESSAGE_BYTES_MAX} of a message"):
            await asyncio.wait_for(asks.ask("state", {"size": MESSAGE_BYTES_MAX}), TIMEOUT_S)
        assert await asks.ask("state", {"size": 1}) == "x"
    finally:
        asks.close()
        answers.close()


async def unasked(what: str, body: dict[str, Any]) -> Any:
    raise AssertionError(f"nobody asks for {what} {body}")


def test_it_ends_in_order(role: Role) -> None:
    pids = worker_pids(role)
    with ServerClient.to(Endpoint("127.0.0.1", role.port())) as client:
        client.seek([1])
        assert role.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_end_with_their_supervisor(role: Role) -> None:
    pids = worker_pids(role)
    role.process.kill()
    role.process.wait()
    wait_until(lambda: not any(alive(pid) for pid in pids), TIMEOUT_S, "the workers' end")


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    return False


def test_a_shared_port_is_not_taken_twice(role: Role, tmp_path: Path) -> None:
    for workers in (1, 2):
        with (
            pytest.raises(AssertionError, match="cannot listen"),
            running(
                "cube_server.main",
                [
                    f"--port={role.port()}",
                    "--grpc_port=-1",
                    f"--workers={workers}",
                    "--data_dir=another",
                ],
                cwd=tmp_path,
            ),
        ):
            pass
    with socket.create_connection(("127.0.0.1", role.port()), TIMEOUT_S):
        pass


def test_mapped_files_are_shared_as_well(tmp_path: Path) -> None:
    two_passes(tmp_path / "data")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", "--workers=2", "--in_mem=false"]
    with (
        running("cube_server.main", arguments, cwd=tmp_path) as role,
        ServerClient(role) as client,
    ):
        assert client.seek([1]).values[0].status == 0
        client.state("enable", version="2_2")
        assert client.status()["counters"]["connections_accepted"] >= 2
