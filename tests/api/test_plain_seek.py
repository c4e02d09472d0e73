"""Pinned seeks on an event loop: the short way as long as all is well, and what follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cube_api import STATUS_FAILED, AsyncCubeClient, SeekTimeoutError, VersionNotLoadedError
from cube_api._alarm import Alarm
from cube_core._native import encode_error_frame
from tests.api.conftest import NewPeer, clients
from tests.api.peers import (
    Client,
    PinnedInThread,
    answer_from,
    answer_with,
    conf_of,
    expected_rows,
    new_seeker,
    write_shard,
)
from tests.prpc_peer import LoopThread, Peer
from tests.waiting import wait_until

KEYS = np.arange(10, dtype=np.uint64)


def check_rows(client: Client) -> None:
    rows, status = client.seek("d", KEYS)
    assert not status.any()
    np.testing.assert_array_equal(rows, expected_rows(KEYS, "1_1"))


def test_what_has_answered_is_not_asked_again(
    client_thread: LoopThread, two_shards: list[Peer]
) -> None:
    sound = two_shards[1].answer
    answers = iter([lambda f: encode_error_frame(f.correlation_id, 2003, "stopping"), sound])
    two_shards[1].answer = lambda frame: next(answers)(frame)
    with clients("pinned", client_thread) as new_client:
        check_rows(new_client(conf_of([[peer.endpoint] for peer in two_shards], retry=1)))
    assert [peer.requests_num for peer in two_shards] == [1, 2]


def test_a_shard_that_is_late_is_failed_and_the_others_rows_stay(
    client_thread: LoopThread, two_shards: list[Peer]
) -> None:
    two_shards[1].hold = True
    conf = conf_of([[peer.endpoint] for peer in two_shards], timeout=200)
    with clients("pinned", client_thread) as new_client:
        client = new_client(conf)
        found = client.seek("d", KEYS, on_failure="status")
        np.testing.assert_array_equal(found.status, np.where(KEYS % 2, STATUS_FAILED, 0))
        np.testing.assert_array_equal(found.rows[::2], expected_rows(KEYS[::2], "1_1"))
        assert not found.rows[1::2].any()
        assert "no answer within 200 ms" in str(found.errors[0])
        with pytest.raises(SeekTimeoutError):
            client.seek("d", KEYS)
        two_shards[1].release()
        check_rows(client)


def test_another_version_is_refused(client_thread: LoopThread, new_peer: NewPeer) -> None:
    peer = new_peer(answer_with({0: b"\0" * 16}, "2_2"))
    with clients("pinned", client_thread) as new_client:
        client = new_client(conf_of([[peer.endpoint]]))
        with pytest.raises(VersionNotLoadedError, match="answered from version '2_2'"):
            client.seek("d", KEYS[:1])


def test_a_backup_request_takes_over_for_one_shard_only(
    client_thread: LoopThread, new_peer: NewPeer, tmp_path: Path
) -> None:
    peers = [
        [new_peer(answer_from(new_seeker(write_shard(tmp_path, shard, 2, "1_1")))) for _ in "ab"]
        for shard in range(2)
    ]
    peers[1][0].hold = True
    conf = conf_of(
        [[peer.endpoint for peer in replicas] for replicas in peers],
        backup_request=20,
        timeout=20_000,
    )
    with clients("pinned", client_thread) as new_client:
        check_rows(new_client(conf))
        assert [[peer.requests_num for peer in replicas] for replicas in peers] == [[1, 0], [1, 1]]
        peers[1][0].release()


def test_a_cancelled_seek_leaves_nothing_behind(two_shards: list[Peer]) -> None:
    two_shards[0].hold = True

    async def cancelled() -> None:
        async with AsyncCubeClient(conf_of([[p.endpoint] for p in two_shards])) as client:
            seek = asyncio.ensure_future(client.seek("d", KEYS, version="1_1", dim=4))
            with ThreadPoolExecutor(1) as threads:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(
                    threads, wait_until, lambda: two_shards[0].held_num, 30.0, "the request"
                )
            seek.cancel()
            with pytest.raises(asyncio.CancelledError):
                await seek
            replicas = client._directory.topology.dict_named("d").shards
            assert [r.in_order(0)[0].health.in_flight for r in replicas] == [{}, {}]
            two_shards[0].release()
            found = await client.seek("d", KEYS, version="1_1", dim=4)
            assert not found.status.any()

    asyncio.run(cancelled())


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dim": -1}, "dim=-1"),
        ({"timeout_ms": 0}, "timeout_ms=0"),
        ({"on_failure": "ignore"}, "on_failure='ignore'"),
    ],
)
def test_arguments_are_checked(
    client_thread: LoopThread, two_shards: list[Peer], options: dict[str, object], problem: str
) -> None:
    client = PinnedInThread(client_thread, conf_of([[p.endpoint] for p in two_shards]))
    try:
        with pytest.raises(ValueError, match=problem):
            client.seek("d", KEYS, **options)
        with pytest.raises(ValueError, match="vector"):
            client.seek("d", KEYS.reshape(2, 5))
        with pytest.raises(TypeError, match="float64"):
            client.seek("d", KEYS.astype(np.float64))  # type: ignore[arg-type]
    finally:
        client.close()


class Waiter:
    def __init__(self, due_s: float, told: Callable[[], None]) -> None:
        self.due_s = due_s
        self.late = told


def test_an_alarm_tells_those_that_are_late_and_only_them() -> None:
    told: list[str] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        alarm, done = Alarm(), asyncio.Event()
        now_s = loop.time()
        left = Waiter(now_s + 0.01, lambda: told.append("left"))
        alarm.add(Waiter(now_s + 0.05, done.set))
        alarm.add(left)
        alarm.add(Waiter(now_s + 0.02, lambda: told.append("first")))
        alarm.remove(left)
        await asyncio.wait_for(done.wait(), 30)
        alarm.add(Waiter(now_s, lambda: told.append("never")))
        alarm.cancel()
        await asyncio.sleep(0)

    asyncio.run(run())
    assert told == ["first"]
