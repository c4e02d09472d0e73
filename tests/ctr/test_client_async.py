"""The client for an event loop, and requests that are sent to a second server."""

from __future__ import annotations

import asyncio
import math
import socket
from pathlib import Path

import numpy as np
import pytest

from ctr_serving.client import (
    PROTOCOLS,
    AsyncCtrClient,
    ConfError,
    ConnectError,
    CtrClient,
    PredictionError,
    RpcError,
    RpcTimeoutError,
)
from ctr_serving.client._attempts import Attempts
from ctr_serving.client._outages import Outages
from ctr_serving.client._routes import Options, Variant, routes_of_address
from cube_core.endpoint import Endpoint
from cube_core.hedging import HEDGES_BURST_MAX
from tests.ctr.models import requests_of
from tests.ctr.service import Ctr
from tests.ctr.test_client import PREDICTORS, closed_address, peer


def address_of(ctr: Ctr, protocol: str) -> str:
    return ctr.grpc_address if protocol == "grpc" else ctr.address


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_many_predictions_at_once_are_those_of_the_blocking_client(
    ctr: Ctr, protocol: str
) -> None:
    with ctr.client() as blocking:
        expected = [blocking.predict(*requests_of(5, seed)) for seed in range(20)]
    async with AsyncCtrClient(address_of(ctr, protocol), protocol) as client:
        found = await asyncio.gather(*(client.predict(*requests_of(5, seed)) for seed in range(20)))
        large = await client.ask(*requests_of(2000))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    assert large.probabilities.shape == (2000, 2)
    assert (large.variant, large.endpoint) == ("default", address_of(ctr, protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_what_goes_wrong_is_told_as_by_the_blocking_client(ctr: Ctr, protocol: str) -> None:
    closed = closed_address()
    async with AsyncCtrClient(closed, protocol) as client:
        with pytest.raises(ConnectError, match=closed):
            await client.predict(*requests_of(1))
    with peer(lambda connection: None) as address:
        async with AsyncCtrClient(address, protocol, timeout_ms=200) as client:
            with pytest.raises(RpcTimeoutError, match=f"{address}: no answer within"):
                await client.predict(*requests_of(1))
    with peer(lambda connection: connection.sendall(b"garbage" * 10)) as address:
        async with AsyncCtrClient(address, protocol, timeout_ms=2000) as client:
            with pytest.raises(RpcError, match=address):
                await client.predict(*requests_of(1))
    async with AsyncCtrClient(address_of(ctr, protocol), protocol) as client:
        with pytest.raises(PredictionError, match="25 sparse_ids"):
            await client.predict(np.zeros((1, 25), np.int64), np.zeros((1, 13), np.float32))
        with pytest.raises(RpcError, match="2000") as refused:
            await client.predict(*requests_of(2001))
        assert refused.value.code == 2004


async def test_a_server_that_is_down_is_passed_over(ctr: Ctr) -> None:
    async with AsyncCtrClient(f"list://{closed_address()},{ctr.address}") as client:
        for _ in range(4):
            assert (await client.ask(*requests_of(1))).endpoint == ctr.address


async def test_a_protocol_that_is_none() -> None:
    with pytest.raises(ConfError, match="'x' is none of baidu_std, grpc, http"):
        AsyncCtrClient("127.0.0.1:1", "x")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_slow_server_is_not_waited_for(ctr: Ctr, protocol: str) -> None:
    with peer(lambda connection: None) as slow:
        address = f"list://{slow},{address_of(ctr, protocol)}"
        async with AsyncCtrClient(address, protocol, hedge_timeout_ms=20) as client:
            answers = [await client.ask(*requests_of(2)) for _ in range(6)]
        with CtrClient(address, protocol, hedge_timeout_ms=20) as blocking:
            answers += [blocking.ask(*requests_of(2)) for _ in range(6)]
    assert {answer.endpoint for answer in answers} == {address_of(ctr, protocol)}


def test_hedging_by_predictors_prototxt(ctr: Ctr, tmp_path: Path) -> None:
    path = tmp_path / "predictors.prototxt"
    with peer(lambda connection: None) as slow:
        text = PREDICTORS.read_text().replace("127.0.0.1:8010", f"{slow},{ctr.address}")
        path.write_text(
            text.replace("hedge_request_timeout_ms: -1", "hedge_request_timeout_ms: 20")
        )
        with CtrClient.from_conf(path) as client:
            assert {client.ask(*requests_of(2)).endpoint for _ in range(4)} == {ctr.address}


def test_servers_that_are_all_down_or_slow_are_an_error_with_hedging_too() -> None:
    address = f"list://{closed_address()},{closed_address()}"
    with CtrClient(address, hedge_timeout_ms=0) as client, pytest.raises(ConnectError):
        client.predict(*requests_of(1))
    with (
        peer(lambda connection: None) as slow,
        peer(lambda connection: None) as other,
        CtrClient(f"list://{slow},{other}", timeout_ms=300, hedge_timeout_ms=10) as client,
        pytest.raises(RpcTimeoutError, match="no answer within"),
    ):
        client.predict(*requests_of(1))


SERVERS = [Endpoint("h", port) for port in (1, 2, 3)]


def attempts_of(variant: Variant) -> Attempts:
    return Attempts(variant, 100.0)


def test_hedges_go_to_the_other_servers_one_after_the_other() -> None:
    variant = Variant("v", SERVERS, Options(hedge_timeout_ms=20, hedge_count=2))
    attempts = attempts_of(variant)
    assert attempts.first() == SERVERS[0]
    assert attempts.wait_s(100.0) == pytest.approx(0.02)
    assert attempts.hedge(100.01) is None
    assert attempts.hedge(100.021) == SERVERS[1]
    assert attempts.wait_s(100.021) == pytest.approx(0.02)
    assert attempts.hedge(100.042) == SERVERS[2]
    assert attempts.wait_s(100.042) is None
    assert attempts.hedge(200.0) is None
    with pytest.raises(RpcTimeoutError):
        attempts.remaining_s(SERVERS[0], math.inf)


def test_no_server_is_asked_twice_by_hedging() -> None:
    attempts = attempts_of(Variant("v", SERVERS[:2], Options(hedge_timeout_ms=20, hedge_count=2)))
    asked = [attempts.first(), attempts.hedge(101.0), attempts.hedge(102.0)]
    assert asked == [*SERVERS[:2], None]
    assert attempts.wait_s(102.0) is None


def test_a_fleet_that_is_slow_as_a_whole_is_not_asked_twice_for_everything() -> None:
    variant = Variant("v", SERVERS, Options(hedge_timeout_ms=20, hedge_count=1))
    hedges = [attempts_of(variant).hedge(101.0) for _ in range(1000)]
    assert all(hedges[:HEDGES_BURST_MAX])
    assert 90 <= sum(hedge is not None for hedge in hedges) <= 120


def test_a_server_that_failed_is_asked_last_until_its_trial() -> None:
    outages = Outages(trial_s=2.0)
    first, second, third = SERVERS
    assert outages.in_order(SERVERS, 10.0) == SERVERS
    outages.failed(first, 10.0)
    outages.failed(first, 10.0)
    assert outages.in_order(SERVERS, 10.05) == [second, third, first]
    assert outages.in_order([second, third, first], 10.2) == [second, third, first]
    # One request tries it; until that is known to have failed, others do not.
    assert outages.in_order(SERVERS, 10.2) == SERVERS
    assert outages.in_order(SERVERS, 10.3) == [second, third, first]
    outages.failed(first, 12.1)
    assert outages.in_order(SERVERS, 12.25) == [second, third, first]
    assert outages.in_order(SERVERS, 12.35) == SERVERS
    outages.answered(first)
    assert outages.in_order(SERVERS, 12.35) == SERVERS
    for server in SERVERS:
        outages.failed(server, 13.0)
    assert outages.in_order(SERVERS, 13.0) == SERVERS


async def test_a_server_that_is_down_is_not_asked_by_every_request(ctr: Ctr) -> None:
    asked: list[socket.socket] = []

    def hang_up(connection: socket.socket) -> None:
        asked.append(connection)
        connection.close()

    with peer(hang_up) as down:
        address = f"list://{down},{ctr.address}"
        with CtrClient(address) as client:
            for _ in range(100):
                assert client.ask(*requests_of(1)).endpoint == ctr.address
        async with AsyncCtrClient(address) as other:
            for _ in range(100):
                assert (await other.ask(*requests_of(1))).endpoint == ctr.address
    # In turn it would be asked 100 times.
    assert 2 <= len(asked) < 40


@pytest.mark.parametrize(
    ("address", "options"),
    [
        ("h:1", Options(hedge_timeout_ms=20)),
        ("list://h:1,h:2", Options()),
        ("list://h:1,h:2", Options(hedge_timeout_ms=20, hedge_count=0)),
    ],
)
def test_nothing_is_sent_twice_without_being_asked_for(address: str, options: Options) -> None:
    attempts = attempts_of(routes_of_address(address, options).variants[0])
    assert (attempts.can_hedge, attempts.wait_s(100.0)) == (False, None)
    assert attempts.hedge(200.0) is None
