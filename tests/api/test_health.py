"""Servers that fail are put aside, probed ever more rarely, and used again once they answer."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
import pytest

from cube_api import SeekTimeoutError
from cube_api._health import (
    DOUBT_INTERVAL_S,
    FAILURES_MAX,
    PROBE_INTERVAL_MAX_S,
    EndpointHealth,
    HealthBoard,
)
from cube_core._native import Frame, encode_error_frame
from cube_core.endpoint import Endpoint
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import (
    Client,
    answer_from,
    conf_of,
    expected_rows,
    new_seeker,
    write_shard,
)
from tests.api.shard_servers import endpoint_of, new_shard, shard_server
from tests.processes import Role
from tests.prpc_peer import Peer
from tests.server.client import ServerClient
from tests.waiting import wait_until

KEYS = np.arange(10, dtype=np.uint64)


def new_health() -> tuple[EndpointHealth, list[EndpointHealth]]:
    put_aside: list[EndpointHealth] = []
    return EndpointHealth(Endpoint("h", 1), put_aside.append, lambda: None), put_aside


def test_failures_in_a_row_put_a_server_aside() -> None:
    health, put_aside = new_health()
    for _ in range(FAILURES_MAX):
        health.failed(1)
        health.answered(2)
    assert not health.is_aside
    for _ in range(FAILURES_MAX + 2):
        health.failed(3)
    assert health.is_aside
    assert put_aside == [health]


def test_after_a_probe_the_first_failure_puts_it_aside_again() -> None:
    health, put_aside = new_health()
    for _ in range(FAILURES_MAX):
        health.failed(1)
    health.probed(False, 10.0)
    assert health.is_aside
    health.probed(True, 11.0)
    assert not health.is_aside
    health.failed(1)
    assert health.is_aside
    assert len(put_aside) == 2


def test_probes_grow_rarer_up_to_a_bound() -> None:
    health, _ = new_health()
    waits_s = []
    for _ in range(10):
        health.probed(False, 100.0)
        waits_s.append(health.probe_due_s - 100.0)
    assert waits_s == sorted(waits_s)
    assert waits_s[0] < waits_s[-1] == pytest.approx(PROBE_INTERVAL_MAX_S)


def test_requests_in_flight_end_however_they_end() -> None:
    health = HealthBoard(lambda _: None, lambda: None).of(Endpoint("h", 1))
    for number in range(4):
        health.sent(number, 0.0)
    health.answered(0)
    health.failed(1)
    health.overtaken(2, 0.01)
    health.dropped(3)
    assert health.in_flight == {}
    assert health.latency_s > 0


@pytest.fixture
def replicas(new_peer: NewPeer, tmp_path: Path) -> list[Peer]:
    table = write_shard(tmp_path, 0, 1, "1_1")
    return [new_peer(answer_from(new_seeker(table))) for _ in range(2)]


def seek(client: Client) -> None:
    rows, status = client.seek("d", KEYS)
    assert not status.any()
    np.testing.assert_array_equal(rows, expected_rows(KEYS, "1_1"))


def test_a_server_that_is_put_aside_gets_no_seeks_until_it_answers_a_probe(
    new_client: NewClient, replicas: list[Peer]
) -> None:
    sound = replicas[0].answer
    replicas[0].answer = lambda frame: encode_error_frame(frame.correlation_id, 2003, "stopping")
    client = new_client(conf_of([[peer.endpoint for peer in replicas]]))
    for _ in range(2 * FAILURES_MAX):
        seek(client)
    replicas[0].requests_num = replicas[1].requests_num = 0
    connections_num = replicas[0].connections_num
    for _ in range(20):
        seek(client)
    assert replicas[1].requests_num == 20
    # Probes come on connections of their own.
    assert replicas[0].requests_num == replicas[0].connections_num - connections_num

    replicas[0].answer = sound
    wait_until(lambda: _gets_seeks(client, replicas[0]), 15.0, "seeks to the server that recovered")


def _gets_seeks(client: Client, peer: Peer) -> bool:
    before = peer.requests_num
    for _ in range(4):
        seek(client)
    return peer.requests_num - before >= 2


def test_a_hanging_server_is_put_aside(new_client: NewClient, replicas: list[Peer]) -> None:
    """It takes requests and never answers: after some timeouts seeks go to the other one."""
    replicas[0].answer = lambda _: b""
    client = new_client(conf_of([[peer.endpoint for peer in replicas]], timeout=60))
    failed_num = 0
    for _ in range(20):
        try:
            client.seek("d", KEYS)
        except SeekTimeoutError:
            failed_num += 1
    assert failed_num == FAILURES_MAX


def test_a_server_whose_connections_are_dead_is_used_again_on_new_ones(
    any_client: NewClient, replicas: list[Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a firewall on the way has forgotten them: nothing comes back, no reset either."""
    conf = conf_of(
        [[peer.endpoint for peer in replicas]],
        backup_request=20,
        backup_request_share_max=1,
        timeout=20_000,
    )
    client = any_client(conf)
    for _ in range(4):
        seek(client)
    peer, take = replicas[0], replicas[0].requested
    dead = set(peer._connections)
    answered: list[Frame] = []

    def requested(transport: asyncio.Transport, frame: Frame) -> None:
        if transport not in dead:
            take(transport, frame)
            if len(frame.payload) > len(KEYS):
                answered.append(frame)

    monkeypatch.setattr(peer, "requested", requested)

    def is_used() -> bool:
        seek(client)
        return len(answered) > 10

    wait_until(is_used, 15.0, "seeks to the server that answers probes")


class Load:
    """Seeks of several threads without a pause; `failures` should stay empty."""

    def __init__(self, client: Client, threads_num: int) -> None:
        self.seeks_num = 0
        self.failures: list[BaseException] = []
        self._client = client
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads_num)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for_seeks(self, count: int) -> None:
        target = self.seeks_num + count
        wait_until(lambda: self.seeks_num >= target or self.failures, 30.0, f"{count} seeks")

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                seek(self._client)
            except BaseException as error:
                self.failures.append(error)
                return
            self.seeks_num += 1


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Role]]:
    with ExitStack() as stack:
        yield lambda name, port=0: stack.enter_context(shard_server(tmp_path / name, port))


def test_a_killed_replica_fails_no_seek_and_is_used_again(
    new_client: NewClient, start_server: Callable[..., Role], tmp_path: Path
) -> None:
    for name in ("a", "b"):
        new_shard(tmp_path / name, 0, shard_num=1)
    killed, other = start_server("a"), start_server("b")
    endpoints = [endpoint_of(killed), endpoint_of(other)]
    client = new_client(conf_of([endpoints], timeout=10_000))
    with Load(client, threads_num=4) as load:
        load.wait_for_seeks(200)
        killed.stop(signal.SIGKILL)
        load.wait_for_seeks(500)
        revived = start_server("a", endpoints[0].port)
        wait_until(lambda: _requests_of(revived) > 100 or load.failures, 15.0, "seeks to it")
    assert load.failures == []


def test_a_late_replica_is_left_out_until_it_has_caught_up(
    new_client: NewClient, start_server: Callable[..., Role], tmp_path: Path
) -> None:
    """It failed no seek, and says itself that it should serve another version."""
    for name in ("a", "b"):
        new_shard(tmp_path / name, 0, shard_num=1)
    first, late = start_server("a"), start_server("b")
    client = new_client(conf_of([[endpoint_of(first), endpoint_of(late)]], timeout=10_000))
    with ServerClient(first) as operator:
        operator.state("enable", version="2_2")

    def versions() -> set[str | None]:
        return {client.seek("d", KEYS).version for _ in range(10)}

    assert versions() == {"1_1", "2_2"}
    with ServerClient(late) as operator:
        assert versions() == {"1_1", "2_2"}, "it was told nothing, and may be the one that is right"
        operator.state("want", version="2_2")
        wait_until(lambda: versions() == {"2_2"}, 60.0, "the late one to be left out")
        requests_num = _requests_of(late)
        operator.state("enable", version="2_2")
        wait_until(lambda: versions() and _requests_of(late) > requests_num + 10, 60.0, "its seeks")
    assert versions() == {"2_2"}


def test_one_that_is_doubted_is_asked_now_and_then() -> None:
    asked: list[None] = []
    board = HealthBoard(lambda _: None, lambda: asked.append(None))
    health = board.of(Endpoint("h", 1))
    for now_s in (10.0, 10.1, 10 + DOUBT_INTERVAL_S / 2):
        health.doubt(now_s)
    assert board.doubted() == [health]
    health.asked_whether_late(False)
    assert (board.doubted(), health.is_aside, len(asked)) == ([], False, 1)
    health.doubt(10 + DOUBT_INTERVAL_S)
    health.asked_whether_late(True)
    assert (board.doubted(), health.is_aside, len(asked)) == ([], True, 2)
    health.doubt(10 + 3 * DOUBT_INTERVAL_S)
    assert len(asked) == 2, "probes are for those that are aside"


def _requests_of(role: Role) -> int:
    status = httpx.get(f"http://{endpoint_of(role)}/status", trust_env=False, timeout=10).json()
    return int(status["counters"]["requests"])
