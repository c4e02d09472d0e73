"""Control commands to shard servers, as JSON over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from cube_core.access import authorization
from cube_core.conf.transfer_conf import Replica
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError
from cube_core.tls import ClientTls, Renewed

CONNECT_TIMEOUT_S = 3.0
_TEXT_MAX = 500


class ServersHttp:
    """HTTP to the servers, which are never behind the proxy of the environment.

    Args:
        token: that comes with every request; "" for none.
        tls: what the servers speak; None for plain HTTP.
    """

    def __init__(self, token: str = "", tls: ClientTls | None = None) -> None:
        self._headers = authorization(token)
        self._tls = tls
        self._clients = Renewed(self._open, tls)

    async def post(
        self, endpoint: Endpoint, path: str, body: dict[str, Any], timeout: httpx.Timeout
    ) -> httpx.Response:
        """Raises httpx.RequestError: there is no answer."""
        return await self._clients.get().post(self._url(endpoint, path), json=body, timeout=timeout)

    async def get(
        self, endpoint: Endpoint, path: str, timeout: httpx.Timeout, server_name: str = ""
    ) -> httpx.Response:
        """
        Args:
            server_name: what the server's certificate must hold; "" for the endpoint's host.

        Raises:
            httpx.RequestError: there is no answer.
        """
        name = {"sni_hostname": server_name} if server_name and self._tls else None
        return await self._clients.get().get(
            self._url(endpoint, path), timeout=timeout, extensions=name
        )

    def _url(self, endpoint: Endpoint, path: str) -> str:
        return f"{'https' if self._tls else 'http'}://{endpoint}{path}"

    async def __aenter__(self) -> ServersHttp:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.all():
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        verify = self._tls.context() if self._tls else False
        return httpx.AsyncClient(trust_env=False, headers=self._headers, verify=verify)


@dataclass(frozen=True)
class ReplicaVersions:
    """What a server serves, and what it holds loaded beside it; "" = nothing."""

    current: str
    background: str
    wanted: str | None = None
    """What it was told that it is to serve; None: it takes no such command."""


class ControlClient:
    """Sends commands to one shard server."""

    def __init__(self, replica: Replica, http: ServersHttp) -> None:
        self.replica = replica
        self._http = http
        self._name = f"{replica.name} ({replica.endpoint})"

    async def status(self) -> ReplicaVersions:
        reply = await self.command("status", timeout_s=5.0)
        wanted = reply.get("want_version")
        return ReplicaVersions(
            current=str(reply.get("cur_version", "")),
            background=str(reply.get("bg_version", "")),
            wanted=None if wanted is None else str(wanted),
        )

    async def shard_num(self, version: str, *, timeout_s: float) -> int | None:
        """Shards that the server's table of a version is one of; None when it has none."""
        try:
            reply = await self.command("verify", version=version, timeout_s=timeout_s)
        except (ConnectError, RpcTimeoutError):
            raise
        except RpcError:
            return None
        shard_num = reply.get("shard_num")
        return shard_num if isinstance(shard_num, int) else None

    async def command(self, cmd: str, *, timeout_s: float, **fields: Any) -> dict[str, Any]:
        """Sends `{"cmd": cmd, **fields}` and returns the reply.

        Raises:
            ConnectError, RpcTimeoutError: no answer; RpcError: the server refuses, or its answer
                is no JSON object. All name the server and the command.
        """
        where = f"{self._name}: {cmd}"
        timeout = httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._http.post(
                self.replica.endpoint, "/ControlService/cmd", {"cmd": cmd, **fields}, timeout
            )
        except httpx.TimeoutException as error:
            raise RpcTimeoutError(f"{where}: no answer within {timeout_s:g} s") from error
        except httpx.RequestError as error:
            raise ConnectError(f"{where}: {error or type(error).__name__}") from error
        if response.status_code != httpx.codes.OK:
            text = response.text[:_TEXT_MAX].strip()
            raise RpcError(f"{where}: HTTP {response.status_code}: {text}")
        try:
            reply = response.json()
        except ValueError as error:
            raise RpcError(f"{where}: the answer is no JSON") from error
        if not isinstance(reply, dict):
            raise RpcError(f"{where}: the answer is no JSON object")
        return reply
