"""Servers that are slow, strange or gone, as the sampler sees them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import httpx
import pytest

from cube_core.conf.transfer_conf import Replica, TransferConf
from cube_core.endpoint import Endpoint
from cube_transfer.control_client import ServersHttp
from cube_transfer.page import sampling
from cube_transfer.page.sampling import Sampler
from tests.page.test_readings import CTR, SERVER

_HANGS = b""


@contextlib.asynccontextmanager
async def answering(answer: bytes, seen: list[bytes] | None = None) -> AsyncIterator[Endpoint]:
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

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        ends.set()
        server.close()
        await server.wait_closed()


def reply(body: object, status: str = "200 OK") -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return b"HTTP/1.1 %s\r\ncontent-length: %d\r\n\r\n%s" % (status.encode(), len(text), text)


def conf(servers: list[Endpoint], ctr_servers: list[Endpoint] | None = None) -> TransferConf:
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
        ctr_servers=tuple(ctr_servers or ()),
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
