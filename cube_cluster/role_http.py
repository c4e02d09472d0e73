"""Asking roles over HTTP, with the token and the certificate of their cluster."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx

from cube_cluster.cluster import Cluster
from cube_cluster.flags import taken_flags
from cube_cluster.roles import Role
from cube_core.access import Access, authorization
from cube_core.conf.cube_conf import TlsConf

_READY_TIMEOUT_S = 2.0


class RoleHttp:
    """How the roles of a cluster are asked.

    Raises:
        ConfError: a file of a token or a certificate cannot be used.
    """

    def __init__(self, cluster: Cluster) -> None:
        security = cluster.security
        access = Access.read(security.read_token_file or "", security.operate_token_file or "")
        self.token = access.read_token or access.operate_token
        self._tls: TlsConf | None = None
        self._flags: dict[str, Any] = {}
        if security.tls_cert_file:
            self._flags = {"tls_cert_file": security.tls_cert_file}
            self._tls = TlsConf(
                cert_file=security.tls_cert_file,
                key_file=security.tls_key_file or "",
                ca_file=security.tls_ca_file or "",
                server_name=security.tls_server_name or "",
            )

    @contextlib.asynccontextmanager
    async def client(self, timeout_s: float) -> AsyncIterator[httpx.AsyncClient]:
        """For `get`. Roles are asked directly, whatever proxy the environment names."""
        async with httpx.AsyncClient(
            timeout=timeout_s,
            trust_env=False,
            headers=authorization(self.token),
            verify=self._tls.client().context() if self._tls else True,
        ) as client:
            yield client

    async def get(self, client: httpx.AsyncClient, role: Role, path: str) -> httpx.Response:
        """Raises httpx.HTTPError when the role does not answer."""
        is_secured = self._tls is not None and bool(taken_flags(role.kind, self._flags))
        name = self._tls.server_name if self._tls else ""
        return await client.get(
            f"{'https' if is_secured else 'http'}://{role.host}:{role.ports['port']}{path}",
            extensions={"sni_hostname": name} if name and is_secured else None,
        )

    def serves(self, role: Role) -> bool:
        """Whether its `/ready` says that it does its work."""

        async def ask() -> bool:
            async with self.client(_READY_TIMEOUT_S) as client:
                answer = await self.get(client, role, "/ready")
                return answer.status_code == httpx.codes.OK

        try:
            return asyncio.run(ask())
        except httpx.HTTPError:
            return False
