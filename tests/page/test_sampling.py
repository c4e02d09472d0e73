"""Servers that are slow, strange or gone, as the sampler sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from cube_core.conf.transfer_conf import Replica, TransferConf
from cube_core.endpoint import DnsName, Endpoint
from cube_transfer.control_client import ServersHttp
from cube_transfer.page import ctr_addresses, sampling
from cube_transfer.page.sampling import Sampler
from tests.page.test_readings import CTR, SERVER

_HANGS = b""


@contextlib.asynccontextmanager
async def answering(
    answer: bytes, seen: list[bytes] | None = None, place: tuple[str, int] = ("127.0.0.1", 0)
) -> AsyncIterator[Endpoint]:
    """A server that gives every request this answer, or none."""
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(asked)
        if answer == _HANGS:
            await ends.wait()
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, *place)
    try:
        yield Endpoint(place[0], server.sockets[0].getsockname()[1])
    finally:
        ends.set()
        server.close()
        await server.wait_closed()


def reply(body: object, status: str = "200 OK") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(text), text)


def conf(servers: list[Endpoint], ctr_servers: Sequence[Endpoint | DnsName] = ()) -> TransferConf:
    return TransferConf(
        dict_name="d",
        wget_port=8098,
        donefile_address="x",
        output_address="x",
        tmp_address="x",
        shard_num=1,
        replicas=tuple(
            Replica(shard=0, copy_index=copy, endpoint=each, deploy_path="")
            for copy, each in enumerate(servers)
        ),
        ctr_servers=tuple(ctr_servers),
    )


async def test_one_server_does_not_hide_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_TIMEOUT", httpx.Timeout(0.5))
    answers = {
        "fine": reply(SERVER),
        "hangs": _HANGS,
        "refuses": reply(b"no", "401 Unauthorized"),
        "strange": reply([1]),
        "no json": reply(b"<html>"),
        "cut": b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",
    }
    async with contextlib.AsyncExitStack() as stack:
        seen: list[bytes] = []
        places = [
            await stack.enter_async_context(answering(answer, seen)) for answer in answers.values()
        ]
        gone = Endpoint("127.0.0.1", 1)
        ctr = await stack.enter_async_context(answering(reply(CTR), seen))
        looking = await stack.enter_async_context(ServersHttp("token-to-read"))
        sampler = Sampler(conf([*places, gone], [ctr]), looking, 5.0)
        began_s = time.time()
        await sampler.sample()
        await sampler.sample()
    errors = {
        name: each.error for name, each in zip([*answers, "gone"], sampler.servers, strict=True)
    }
    assert errors["fine"] == ""
    assert errors["hangs"] == "no answer within 0.5 s"
    assert errors["refuses"] == "/status: HTTP 401; is the read token the same?"
    assert "none of this service" in errors["strange"]
    assert errors["no json"] == "/status: the answer is no JSON"
    assert errors["cut"]
    assert errors["gone"] == "connection refused"
    assert [each.failures for each in sampler.servers] == [0, 2, 2, 2, 2, 2, 2]
    assert all((each.failing_since_s or began_s) >= began_s for each in sampler.servers)
    fine, predictor = sampler.servers[0], sampler.ctr_servers[0]
    assert fine.reading is not None
    assert fine.reading.version == "2_2"
    assert fine.rates is not None
    assert fine.rates.a_second["requests"] == 0
    assert predictor.reading is not None
    assert predictor.reading.version == "2_2"
    assert len(sampler.history.times_s()) == 2
    assert sampler.history.points("of cube0_0") == [None, 0.0]
    # Who looks shows the token, and asks each server once a round.
    assert len(seen) == 2 * len([*places, ctr])
    assert all(b"authorization: bearer token-to-read" in asked.lower() for asked in seen)


class Resolver:
    """Answers for `pods` in place of the system's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: list[str] | None = []
        self._ask = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self.getaddrinfo)

    def getaddrinfo(self, host: str, port: int, *args: Any, **kwargs: Any) -> list[Any]:
        if host != "pods":
            return self._ask(host, port, *args, **kwargs)
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (each, port)) for each in self.addresses]


async def test_each_address_of_a_name_is_a_server_and_comes_and_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = Resolver(monkeypatch)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(answering(reply(CTR), None, ("127.0.0.2", 0)))
        port = first.port
        await stack.enter_async_context(answering(reply(CTR), None, ("127.0.0.3", port)))
        alone = await stack.enter_async_context(answering(reply(CTR)))
        looking = await stack.enter_async_context(ServersHttp())
        sampler = Sampler(conf([], [alone, DnsName("pods", port)]), looking, 5.0)

        async def sampled() -> dict[str, str]:
            await sampler.sample()
            return {each.name: each.error for each in sampler.ctr_servers}

        name = f"dns://pods:{port}"
        resolver.addresses = None
        assert await sampled() == {str(alone): "", name: "pods: Name or service not known"}
        resolver.addresses = ["127.0.0.3", "127.0.0.2", "127.0.0.2"]
        assert await sampled() == {
            str(alone): "",
            f"127.0.0.2:{port}": "",
            f"127.0.0.3:{port}": "",
        }
        assert await sampled()
        kept = sampler.ctr_servers[1]
        assert kept.rates is not None, "it is the same server as before"
        assert sampler.history.points(f"of 127.0.0.3:{port}")
        # One that is scaled down goes, with its past; a new one comes.
        resolver.addresses = ["127.0.0.2", "127.0.0.4"]
        assert await sampled() == {
            str(alone): "",
            f"127.0.0.2:{port}": "",
            f"127.0.0.4:{port}": "connection refused",
        }
        assert not sampler.history.points(f"of 127.0.0.3:{port}")
        # A resolver that is out for a moment hides nobody.
        resolver.addresses = None
        assert list(await sampled()) == [str(alone), f"127.0.0.2:{port}", f"127.0.0.4:{port}"]


async def test_a_resolver_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctr_addresses, "_TIMEOUT_S", 0.2)
    resolver, goes_on = Resolver(monkeypatch), threading.Event()
    ask = resolver.getaddrinfo

    def hang(host: str, *args: Any, **kwargs: Any) -> list[Any]:
        if host == "pods":
            asked.append(host)
            goes_on.wait()
        return ask(host, *args, **kwargs)

    asked: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    async with answering(reply(CTR)) as alone, ServersHttp() as looking:
        sampler = Sampler(conf([], [alone, DnsName("pods", alone.port)]), looking, 5.0)
        try:
            for _ in range(2):
                await sampler.sample()
                errors = [each.error for each in sampler.ctr_servers]
                assert errors == ["", "pods: no answer within 0.2 s"]
            assert asked == ["pods"], "one question at a time"
        finally:
            goes_on.set()
        resolver.addresses = ["127.0.0.1"]
        await sampler.sample()
        assert [each.name for each in sampler.ctr_servers] == [str(alone)]
