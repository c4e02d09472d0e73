"""How every replica of every shard is, asked over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from cube_core.access import authorization
from cube_core.conf.cube_conf import DictConf, TlsConf
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError


@dataclass(frozen=True)
class ReplicaStatus:
    """One replica of one shard.

    Attributes:
        problem: why it does not serve its shard; "" when it does.
        version, keys, memory_bytes: of the table it serves; "" and 0 without one.
        requests_per_s: between two looks, of all that the server serves.
    """

    dict_name: str
    shard: int
    endpoint: Endpoint
    problem: str
    version: str = ""
    keys: int = 0
    memory_bytes: int = 0
    requests_per_s: float = 0.0


def fleet_status(
    dicts: Iterable[DictConf], *, interval_s: float, timeout_s: float, token: str = ""
) -> list[ReplicaStatus]:
    """Asks every server twice, `interval_s` apart, all of them at the same time; `token` is shown
    to them.

    Raises:
        ConfError: names the dict whose servers cannot be told, or the file that TLS cannot use.
    """
    dicts = list(dicts)
    places = [
        (conf.dict_name, shard, endpoint)
        for conf in dicts
        for shard, endpoints in enumerate(_replicas(conf))
        for endpoint in endpoints
    ]
    servers = {
        endpoint: conf.tls for conf in dicts for each in _replicas(conf) for endpoint in each
    }
    looks = asyncio.run(_look_twice(servers, interval_s, timeout_s, token))
    return [_replica(*place, looks[place[2]]) for place in places]


def _replicas(conf: DictConf) -> list[list[Endpoint]]:
    try:
        return conf.replicas()
    except (ValueError, OSError) as error:
        raise ConfError("cube.conf", conf.dict_name, str(error)) from error


@dataclass(frozen=True)
class _Look:
    """What a server said of itself; `problem` when it said nothing that can be used."""

    status: dict[str, Any]
    requests_per_s: float
    problem: str


async def _look_twice(
    servers: Mapping[Endpoint, TlsConf | None], interval_s: float, timeout_s: float, token: str
) -> dict[Endpoint, _Look]:
    headers = authorization(token)
    async with contextlib.AsyncExitStack() as stack:
        # Servers are asked directly, whatever proxy the environment names for the web.
        clients = {
            tls: await stack.enter_async_context(
                httpx.AsyncClient(
                    timeout=timeout_s,
                    trust_env=False,
                    headers=headers,
                    verify=tls.client().context() if tls else True,
                )
            )
            for tls in set(servers.values())
        }
        looks = await asyncio.gather(
            *(_look(clients[tls], each, tls, interval_s) for each, tls in servers.items())
        )
    return dict(zip(servers, looks, strict=True))


async def _look(
    client: httpx.AsyncClient, endpoint: Endpoint, tls: TlsConf | None, interval_s: float
) -> _Look:
    try:
        before, before_s = await _ask(client, endpoint, tls)
        await asyncio.sleep(interval_s)
        after, after_s = await _ask(client, endpoint, tls)
        requests = int(after["counters"]["requests"]) - int(before["counters"]["requests"])
        # A server that was started anew meanwhile counts from 0.
        return _Look(after, max(0, requests) / (after_s - before_s), "")
    except httpx.HTTPError as error:
        return _Look({}, 0.0, f"unreachable: {str(error) or type(error).__name__}")
    except (ValueError, TypeError, KeyError) as error:
        return _Look({}, 0.0, f"its /status cannot be read: {type(error).__name__}: {error}")


async def _ask(
    client: httpx.AsyncClient, endpoint: Endpoint, tls: TlsConf | None
) -> tuple[dict[str, Any], float]:
    name = {"sni_hostname": tls.server_name} if tls and tls.server_name else None
    scheme = "https" if tls else "http"
    reply = await client.get(f"{scheme}://{endpoint}/status", extensions=name)
    reply.raise_for_status()
    status: dict[str, Any] = reply.json()
    return status, time.monotonic()


def _replica(dict_name: str, shard: int, endpoint: Endpoint, look: _Look) -> ReplicaStatus:
    if look.problem:
        return ReplicaStatus(dict_name, shard, endpoint, look.problem)
    try:
        served = [table for table in look.status["versions"] if table["role"] == "current"]
        here = [t for t in served if t["dict_name"] == dict_name and t["shard"] == shard]
        if here:
            return ReplicaStatus(
                dict_name,
                shard,
                endpoint,
                "",
                str(here[0]["version"]),
                int(here[0]["key_count"]),
                int(here[0]["memory_bytes"]),
                look.requests_per_s,
            )
        others = ", ".join(f"{table['dict_name']} shard {table['shard']}" for table in served)
        problem = f"serves {others}" if others else f"serves nothing: {look.status['last_error']}"
    except (ValueError, TypeError, KeyError) as error:
        problem = f"its /status cannot be read: {type(error).__name__}: {error}"
    return ReplicaStatus(dict_name, shard, endpoint, problem, requests_per_s=look.requests_per_s)
