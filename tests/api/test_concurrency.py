"""Many seeks at once: tasks, threads, forked children, cancelled and closed in the middle."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import SimpleQueue

import numpy as np
import pytest
import uvloop

from cube_api import AsyncCubeClient, CubeClient, SeekTimeoutError, ShardError
from cube_core.conf.cube_conf import DictConf
from tests.api.conftest import NewPeer
from tests.api.peers import answer_with, conf_of, expected_rows
from tests.prpc_peer import Peer
from tests.waiting import wait_until

KEYS = np.arange(100, dtype=np.uint64)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_fifty_seeks_on_one_loop(two_shards: list[Peer], new_loop: object) -> None:
    """All are in flight together, over one connection a shard, and answered out of order."""

    async def run() -> None:
        async with AsyncCubeClient(conf_of([[peer.endpoint] for peer in two_shards])) as client:
            for peer in two_shards:
                peer.hold = True
            seeks = [asyncio.ensure_future(client.seek("d", KEYS[i:])) for i in range(50)]
            in_flight = lambda: all(peer.held_num == 50 for peer in two_shards)  # noqa: E731
            await asyncio.to_thread(wait_until, in_flight, 10.0, "50 requests at each shard")
            for peer in two_shards:
                await asyncio.to_thread(peer.release)
            for i, result in enumerate(await asyncio.gather(*seeks)):
                np.testing.assert_array_equal(result.rows, expected_rows(KEYS[i:], "1_1"))

    loop = new_loop()  # type: ignore[operator]
    try:
        loop.run_until_complete(run())
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()
    assert [peer.connections_num for peer in two_shards] == [1, 1]


def test_eight_threads(two_shards: list[Peer]) -> None:
    with (
        CubeClient(conf_of([[peer.endpoint] for peer in two_shards])) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        starts = np.random.default_rng(7).integers(0, 99, 400)

        def seek(start: int) -> None:
            keys = KEYS[start:]
            np.testing.assert_array_equal(client.seek("d", keys).rows, expected_rows(keys, "1_1"))

        for done in [threads.submit(seek, int(start)) for start in starts]:
            done.result(30)
    assert all(peer.connections_num <= 8 for peer in two_shards)


def _seek_in_child(client: CubeClient, answers: SimpleQueue[object]) -> None:
    try:
        answers.put(client.seek("d", KEYS).rows)
    except Exception as error:
        answers.put(repr(error))


def _seek_before_and_in_a_child(conf: dict[str, DictConf], answers: SimpleQueue[object]) -> None:
    context = multiprocessing.get_context("fork")
    with CubeClient(conf) as client:
        client.seek("d", KEYS)
        child = context.Process(target=_seek_in_child, args=(client, answers))
        child.start()
        child.join(20)
        child.kill()
        client.seek("d", KEYS)


def test_a_forked_child_has_connections_of_its_own(two_shards: list[Peer]) -> None:
    # From a process that is new: that of the tests may have grown too large to be forked.
    context = multiprocessing.get_context("spawn")
    answers: SimpleQueue[object] = context.SimpleQueue()
    conf = conf_of([[peer.endpoint] for peer in two_shards])
    parent = context.Process(target=_seek_before_and_in_a_child, args=(conf, answers))
    parent.start()
    try:
        parent.join(40)
        assert parent.exitcode == 0
        np.testing.assert_array_equal(answers.get(), expected_rows(KEYS, "1_1"))
    finally:
        parent.kill()
        parent.join()
    assert [peer.connections_num for peer in two_shards] == [2, 2]


async def test_a_cancelled_seek_disturbs_no_other(two_shards: list[Peer]) -> None:
    async with AsyncCubeClient(conf_of([[peer.endpoint] for peer in two_shards])) as client:
        two_shards[0].hold = True
        seeks = [asyncio.ensure_future(client.seek("d", KEYS)) for _ in range(2)]
        held = lambda: two_shards[0].held_num == 2  # noqa: E731
        await asyncio.to_thread(wait_until, held, 10.0, "two requests at the shard")
        seeks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await seeks[0]
        await asyncio.to_thread(two_shards[0].release)
        assert not (await seeks[1]).status.any()
    assert two_shards[0].connections_num == 1


async def test_a_short_timeout_disturbs_no_other_seek(two_shards: list[Peer]) -> None:
    """The connection that answered nothing takes no new requests, but ends those it has."""
    async with AsyncCubeClient(conf_of([[peer.endpoint] for peer in two_shards])) as client:
        two_shards[0].hold = True
        patient = asyncio.ensure_future(client.seek("d", KEYS))
        with pytest.raises(SeekTimeoutError, match="within 30 ms from shard 0"):
            await client.seek("d", KEYS, timeout_ms=30)
        await asyncio.to_thread(two_shards[0].release)
        assert not (await patient).status.any()
        assert not (await client.seek("d", KEYS)).status.any()


async def test_closing_fails_what_is_in_flight(two_shards: list[Peer]) -> None:
    client = AsyncCubeClient(conf_of([[peer.endpoint] for peer in two_shards]))
    two_shards[0].hold = True
    seek = asyncio.ensure_future(client.seek("d", KEYS))
    held = lambda: two_shards[0].held_num == 1  # noqa: E731
    await asyncio.to_thread(wait_until, held, 10.0, "a request at the shard")
    await client.close()
    with pytest.raises(ShardError, match="the channel is closed"):
        await seek


def test_closing_lets_seeks_of_other_threads_end(two_shards: list[Peer]) -> None:
    client = CubeClient(conf_of([[peer.endpoint] for peer in two_shards], timeout=10_000))
    two_shards[0].hold = True
    statuses: list[list[int]] = []
    thread = threading.Thread(target=lambda: statuses.append(list(client.seek("d", KEYS).status)))
    thread.start()
    try:
        wait_until(lambda: two_shards[0].held_num == 1, 10.0, "a request at the shard")
        client.close()
    finally:
        two_shards[0].release()
        thread.join(20)
    assert statuses == [[0] * 100]


async def test_a_large_batch_leaves_the_loop_free(new_peer: NewPeer) -> None:
    """200,000 keys come back whole, and meanwhile the loop is never held up for long."""
    peer = new_peer(answer_with({}))
    keys = np.arange(200_000, dtype=np.uint64)
    async with AsyncCubeClient(conf_of([[peer.endpoint]], timeout=30_000)) as client:
        loop = asyncio.get_running_loop()
        before_s = loop.time()
        seek = asyncio.ensure_future(client.seek("d", keys, dim=4))
        turns_num = 0
        while not seek.done():
            await asyncio.wait([seek], timeout=0.001)
            turns_num += 1
        result = await seek
        assert result.rows.shape == (200_000, 4)
        assert (result.status == -1).all()
        assert turns_num > (loop.time() - before_s) / 0.05
