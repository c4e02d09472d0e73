"""Asks a server that was put aside whether it answers again."""

from __future__ import annotations

from cube_core.endpoint import Endpoint
from cube_core.errors import RpcError
from cube_core.tls import ClientTls
from cube_core.wire.prpc_blocking import BlockingConnection

_SERVER_STOPPING_CODE = 2003


def answers(endpoint: Endpoint, *, within_s: float, tls: ClientTls | None = None) -> bool:
    """Whether it takes a connection and answers a seek without keys; an error is an answer too,
    unless it says that the server is stopping."""
    try:
        connection = BlockingConnection(endpoint, connect_timeout_s=within_s, tls=tls)
    except RpcError:
        return False
    try:
        connection.call("rec.mcube.DictService", "seek", b"", timeout_s=within_s)
    except RpcError as error:
        # Errors of this side have no code.
        return error.code not in (0, _SERVER_STOPPING_CODE)
    finally:
        connection.close()
    return True
