"""A client of several predictors turns to another one when the first has no model yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ctr_serving.client import AsyncCtrClient, ConnectError, CtrClient, RpcError
from cube_core._native import (
    Frame,
    encode_ctr_response,
    encode_error_frame,
    encode_response_frame,
)
from tests.ctr.models import requests_of
from tests.prpc_peer import LoopThread, Peer
from tests.waiting import wait_until

PROBABILITIES = np.array([[0.25, 0.75]], np.float32)


def predicts(frame: Frame) -> bytes:
    return encode_response_frame(frame.correlation_id, encode_ctr_response(PROBABILITIES))


def has_no_model(frame: Frame) -> bytes:
    return encode_error_frame(frame.correlation_id, 2003, "no model is loaded yet")


def refuses(frame: Frame) -> bytes:
    return encode_error_frame(frame.correlation_id, 2004, "too many are under way")


@pytest.fixture
def peers() -> Iterator[list[Peer]]:
    """One without a model, one with."""
    thread = LoopThread()
    peers = [Peer(thread, has_no_model), Peer(thread, predicts)]
    yield peers
    for peer in peers:
        peer.stop()
    thread.close()


def address_of(peers: list[Peer]) -> str:
    return "list://" + ",".join(str(peer.endpoint) for peer in peers)


@pytest.mark.parametrize("hedge_timeout_ms", [-1, 20_000], ids=["one at a time", "hedging"])
def test_no_request_fails_while_one_has_a_model(peers: list[Peer], hedge_timeout_ms: int) -> None:
    with CtrClient(address_of(peers), hedge_timeout_ms=hedge_timeout_ms) as client:
        for _ in range(20):
            np.testing.assert_array_equal(client.predict(*requests_of(1)), PROBABILITIES)
    assert peers[0].requests_num > 0


def test_no_request_fails_on_an_event_loop(peers: list[Peer]) -> None:
    async def ask() -> None:
        async with AsyncCtrClient(address_of(peers)) as client:
            answers = await asyncio.gather(*(client.predict(*requests_of(1)) for _ in range(20)))
        np.testing.assert_array_equal(np.concatenate(answers), np.repeat(PROBABILITIES, 20, 0))

    asyncio.run(ask())


def test_when_none_has_a_model_the_reason_is_told(peers: list[Peer]) -> None:
    peers[1].answer = has_no_model
    with (
        CtrClient(address_of(peers)) as client,
        pytest.raises(ConnectError, match="no model is loaded yet") as raised,
    ):
        client.predict(*requests_of(1))
    assert raised.value.code == 2003
    peers[0].answer = predicts
    with CtrClient(address_of(peers)) as client:
        assert client.predict(*requests_of(1)).shape == (1, 2)


def test_who_waits_while_the_client_is_closed_is_told(peers: list[Peer]) -> None:
    for peer in peers:
        peer.answer, peer.hold = predicts, True
    client = CtrClient(address_of(peers), hedge_timeout_ms=20_000)
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(client.predict, *requests_of(1)) for _ in range(2)]
        wait_until(lambda: sum(peer.held_num for peer in peers) == 2, what="both are asked")
        client.close()
        for each in asked:
            with pytest.raises(ConnectError, match="closed"):
                each.result(10)


@pytest.mark.parametrize("hedge_timeout_ms", [-1, 20_000], ids=["one at a time", "hedging"])
async def test_what_is_in_flight_is_not_sent_again_by_a_closed_client(
    peers: list[Peer], hedge_timeout_ms: int
) -> None:
    for peer in peers:
        peer.answer, peer.hold = predicts, True
    client = AsyncCtrClient(address_of(peers), hedge_timeout_ms=hedge_timeout_ms)
    asked = [asyncio.ensure_future(client.predict(*requests_of(1))) for _ in range(2)]
    await asyncio.to_thread(
        wait_until, lambda: sum(peer.held_num for peer in peers) == 2, what="both are asked"
    )
    await asyncio.wait_for(client.close(), 10)
    for each in asked:
        with pytest.raises(ConnectError, match="closed"):
            await asyncio.wait_for(each, 10)
    assert sum(peer.connections_num for peer in peers) == 2


def test_a_hedge_that_is_refused_does_not_end_the_request(peers: list[Peer]) -> None:
    """The server that was asked first is slow, and answers."""
    slow, busy = peers
    slow.answer, slow.hold, busy.answer = predicts, True, refuses
    with (
        CtrClient(address_of(peers), hedge_timeout_ms=10) as client,
        ThreadPoolExecutor() as pool,
    ):
        asked = pool.submit(client.predict, *requests_of(1))
        wait_until(lambda: busy.requests_num > 0, what="the other is asked too")
        time.sleep(0.05)
        slow.release()
        np.testing.assert_array_equal(asked.result(10), PROBABILITIES)
        slow.answer = refuses
        with pytest.raises(RpcError, match="too many are under way"):
            client.predict(*requests_of(1))
