"""Backup requests: the first answer wins, within a share of all requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cube_api import SeekTimeoutError
from cube_core._native import Frame, encode_error_frame
from cube_core.hedging import HEDGES_BURST_MAX, HedgeBudget
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import answer_from, conf_of, expected_rows, new_seeker, write_shard
from tests.api.slow_proxy import slow_proxy
from tests.prpc_peer import Answer, LoopThread, Peer
from tests.waiting import wait_until

KEYS = np.arange(10, dtype=np.uint64)


@pytest.fixture
def replicas(new_peer: NewPeer, tmp_path: Path) -> list[Peer]:
    table = write_shard(tmp_path, 0, 1, "1_1")
    return [new_peer(answer_from(new_seeker(table))) for _ in range(2)]


def slowly(answer: Answer) -> Answer:
    pause = threading.Event()

    def slow_answer(frame: Frame) -> bytes:
        pause.wait(0.01)
        return answer(frame)

    return slow_answer


def test_the_budget_is_a_share_and_a_burst() -> None:
    budget = HedgeBudget(0.1)
    assert sum(budget.take() for _ in range(100)) == HEDGES_BURST_MAX
    granted = 0
    for _ in range(1000):
        budget.count_request()
        granted += budget.take()
    assert 95 <= granted <= 101


def test_no_share_means_no_backup_requests() -> None:
    assert not HedgeBudget(0.0).take()


def test_the_other_replica_answers_first(any_client: NewClient, replicas: list[Peer]) -> None:
    replicas[0].hold = True
    conf = conf_of([[peer.endpoint for peer in replicas]], backup_request=20, timeout=20_000)
    client = any_client(conf)
    rows, status = client.seek("d", KEYS)
    assert not status.any()
    np.testing.assert_array_equal(rows, expected_rows(KEYS, "1_1"))
    assert [peer.requests_num for peer in replicas] == [1, 1]
    replicas[0].release()
    for _ in range(4):
        np.testing.assert_array_equal(client.seek("d", KEYS[2:]).rows, rows[2:])


@pytest.mark.parametrize("loser", ["malformed", "stopping"])
def test_the_answer_of_the_loser_is_dropped(
    any_client: NewClient, replicas: list[Peer], loser: str
) -> None:
    answers: dict[str, Callable[[Frame], bytes]] = {
        "malformed": lambda _: b"HTTP/1.1 400 Bad\r\n\r\n",
        "stopping": lambda frame: encode_error_frame(frame.correlation_id, 2003, "stopping"),
    }
    replicas[0].answer = answers[loser]
    replicas[0].hold = True
    conf = conf_of([[peer.endpoint for peer in replicas]], backup_request=20, timeout=20_000)
    client = any_client(conf)
    assert not client.seek("d", KEYS).status.any()
    replicas[0].release()
    for _ in range(4):
        assert not client.seek("d", KEYS).status.any()


def test_one_replica_is_not_asked_twice(any_client: NewClient, replicas: list[Peer]) -> None:
    replicas[0].hold = True
    client = any_client(conf_of([[replicas[0].endpoint]], backup_request=5, timeout=200))
    with pytest.raises(SeekTimeoutError):
        client.seek("d", KEYS)
    assert replicas[0].requests_num == 1


def test_no_backup_request_unless_the_conf_says_so(
    any_client: NewClient, replicas: list[Peer]
) -> None:
    replicas[0].hold = True
    client = any_client(conf_of([[peer.endpoint for peer in replicas]], timeout=200))
    with pytest.raises(SeekTimeoutError):
        client.seek("d", KEYS)
    assert replicas[1].requests_num == 0


def test_a_backup_request_that_fails_leaves_the_first_one(
    any_client: NewClient, replicas: list[Peer]
) -> None:
    replicas[0].hold = True
    replicas[1].answer = lambda frame: encode_error_frame(frame.correlation_id, 2003, "stopping")
    conf = conf_of([[peer.endpoint for peer in replicas]], backup_request=20, timeout=20_000)
    client = any_client(conf)
    with ThreadPoolExecutor(1) as threads:
        seek = threads.submit(client.seek, "d", KEYS)
        try:
            wait_until(lambda: replicas[1].requests_num, 10.0, "the backup request")
        finally:
            replicas[0].release()
        assert not seek.result(20).status.any()


def test_a_version_that_only_the_slow_replica_has(
    any_client: NewClient, replicas: list[Peer], tmp_path: Path
) -> None:
    """The replica asked in its place refuses the version; the first answer is waited for."""
    replicas[0].answer = answer_from(new_seeker(write_shard(tmp_path, 0, 1, "2_2")))
    replicas[0].hold = True
    conf = conf_of([[peer.endpoint for peer in replicas]], backup_request=20, timeout=20_000)
    client = any_client(conf)
    with ThreadPoolExecutor(1) as threads:
        seek = threads.submit(client.seek, "d", KEYS, version="2_2")
        try:
            wait_until(lambda: replicas[1].requests_num, 10.0, "the backup request")
        finally:
            replicas[0].release()
        assert seek.result(20).version == "2_2"


def test_the_share_of_backup_requests_is_capped(
    any_client: NewClient, replicas: list[Peer]
) -> None:
    """Every answer is slow: the fleet is not asked twice for everything."""
    for peer in replicas:
        peer.answer = slowly(peer.answer)
    conf = conf_of(
        [[peer.endpoint for peer in replicas]],
        backup_request=1,
        backup_request_share_max=0.05,
        timeout=20_000,
    )
    client = any_client(conf)
    seeks_num = 100
    for _ in range(seeks_num):
        assert not client.seek("d", KEYS).status.any()
    asked_num = sum(peer.requests_num for peer in replicas)
    assert seeks_num < asked_num <= seeks_num * 1.05 + HEDGES_BURST_MAX + 1


def test_a_slow_replica_is_left_out_while_it_is_slow(
    any_client: NewClient, replicas: list[Peer], server_thread: LoopThread
) -> None:
    with slow_proxy(server_thread, replicas[0].endpoint, delay_s=0.2) as slow:
        conf = conf_of([[slow.endpoint, replicas[1].endpoint]], backup_request=60, timeout=20_000)
        client = any_client(conf)
        elapsed_s = []
        for _ in range(200):
            begin_s = time.perf_counter()
            assert not client.seek("d", KEYS).status.any()
            elapsed_s.append(time.perf_counter() - begin_s)
        assert replicas[0].requests_num < 40
        assert sum(each_s > 0.15 for each_s in elapsed_s) < 10
        slow.delay_s = 0.0
        before = replicas[0].requests_num
        wait_until(
            lambda: client.seek("d", KEYS) and replicas[0].requests_num > before + 20,
            15.0,
            "seeks to the replica that is fast again",
        )


def test_a_replica_that_is_fast_again_is_used_however_long_its_status_takes(
    any_client: NewClient, replicas: list[Peer]
) -> None:
    """As over TLS from another machine, or with workers: only seeks are held to the limit."""
    sound = replicas[0].answer
    pause_s = {"seek": 0.1, "cmd": 0.1}
    seeks: list[Frame] = []
    pause = threading.Event()

    def answer(frame: Frame) -> bytes:
        pause.wait(pause_s[frame.method])
        if len(frame.payload) > len(KEYS):
            seeks.append(frame)
        return sound(frame)

    thread = LoopThread()
    peer = Peer(thread, answer)
    try:
        conf = conf_of(
            [[peer.endpoint, replicas[1].endpoint]],
            backup_request=30,
            backup_request_share_max=1,
            timeout=20_000,
        )
        client = any_client(conf)
        for _ in range(20):
            assert not client.seek("d", KEYS).status.any()
        assert len(seeks) < 10
        pause_s["seek"] = 0
        wait_until(lambda: client.seek("d", KEYS) and len(seeks) > 20, 20.0, "seeks to the replica")
    finally:
        peer.stop()
        thread.close()
