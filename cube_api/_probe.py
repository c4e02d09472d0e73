"""Asks a server whether it may be used."""

from __future__ import annotations

import json

from cube_core.endpoint import Endpoint
from cube_core.errors import RpcError
from cube_core.tls import ClientTls
from cube_core.wire.prpc_blocking import BlockingConnection

_SERVER_STOPPING_CODE = 2003
_STATUS = b'{"cmd":"status"}'


def answers(
    endpoint: Endpoint,
    *,
    within_s: float,
    seek_within_s: float | None = None,
    tls: ClientTls | None = None,
) -> bool:
    """Whether it takes a connection, does not say that it is not ready and answers a seek without
    keys; an error is an answer too, unless it says that the server is stopping.

    Args:
        seek_within_s: for the seek alone, on a connection that is made by then: connecting and the
            command for the status take longer than a seek. None: `within_s`.
    """
    try:
        connection = BlockingConnection(endpoint, connect_timeout_s=within_s, tls=tls)
    except RpcError:
        return False
    try:
        return _is_ready_or_untold(connection, within_s) and _answers_seek(
            connection, seek_within_s or within_s
        )
    finally:
        connection.close()


def _answers_seek(connection: BlockingConnection, within_s: float) -> bool:
    try:
        connection.call("rec.mcube.DictService", "seek", b"", timeout_s=within_s)
    except RpcError as error:
        return _is_answer(error)
    return True


def _is_ready_or_untold(connection: BlockingConnection, within_s: float) -> bool:
    try:
        return _is_ready(connection, within_s)
    except RpcError as error:
        return _is_answer(error)


def _is_answer(error: RpcError) -> bool:
    # Errors of this side have no code.
    return error.code not in (0, _SERVER_STOPPING_CODE)


def is_late(endpoint: Endpoint, *, within_s: float, tls: ClientTls | None = None) -> bool:
    """Whether it says that it is not ready. One that cannot be asked is not late: that is for
    seeks to find out."""
    try:
        connection = BlockingConnection(endpoint, connect_timeout_s=within_s, tls=tls)
    except RpcError:
        return False
    try:
        return not _is_ready(connection, within_s)
    except RpcError:
        return False
    finally:
        connection.close()


def _is_ready(connection: BlockingConnection, within_s: float) -> bool:
    """Whether it serves the version that it was told to, if it was told any. Servers of the
    original, and those that do not tell everybody, are taken for ready."""
    frame = connection.call(
        "rec.mcube.ControlService", "cmd", b"", timeout_s=within_s, attachment=_STATUS
    )
    try:
        status = json.loads(bytes(frame.attachment) or b"{}")
    except (ValueError, RecursionError):
        return True
    return not isinstance(status, dict) or status.get("ready") is not False
