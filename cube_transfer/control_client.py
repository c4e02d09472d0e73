"""Control commands to shard servers, as JSON over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from cube_core.conf.transfer_conf import Replica
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError

CONNECT_TIMEOUT_S = 3.0
_TEXT_MAX = 500


@dataclass(frozen=True)
class ReplicaVersions:
    """What a server serves, and what it holds loaded beside it; "" = nothing."""

    current: str
    background: str
    wanted: str | None = None
    """What it was told that it is to serve; None: it takes no such command."""


class ControlClient:
    """Sends commands to one shard server."""

    def __init__(self, replica: Replica, http: httpx.AsyncClient) -> None:
        self.replica = replica
        self._http = http
        self._url = f"http://{replica.endpoint}/ControlService/cmd"
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
                self._url, json={"cmd": cmd, **fields}, timeout=timeout
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
