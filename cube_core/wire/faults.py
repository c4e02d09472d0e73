"""How an error leaves a server: brpc's code, the HTTP status and the gRPC status, in one table."""

from __future__ import annotations

import logging
from enum import IntEnum
from typing import NamedTuple

from cube_core.errors import (
    AccessError,
    ControlError,
    CubeError,
    FormatError,
    LimitError,
    NotServingError,
    OverloadError,
    RoleError,
    RpcError,
    RpcTimeoutError,
    VersionNotLoadedError,
)

log = logging.getLogger(__name__)


class Code(IntEnum):
    """brpc's error numbers."""

    NO_SERVICE = 1001
    NO_METHOD = 1002
    BAD_REQUEST = 1003
    NO_ACCESS = 1004
    TIMED_OUT = 1008
    INTERNAL = 2001
    NOT_SERVING = 2003
    """brpc's ELOGOFF, with which its clients, too, turn to another server."""
    LIMIT = 2004


class MethodNotFoundError(RpcError):
    """A request names a service or method that this server does not have."""


class Fault(NamedTuple):
    """One error as each wire tells it; `grpc_status` is a name in `grpc.StatusCode`."""

    code: int
    http_status: int
    grpc_status: str
    text: str


# The first class that matches counts.
_FAULTS: tuple[tuple[type[CubeError], Code, int, str], ...] = (
    (FormatError, Code.BAD_REQUEST, 400, "INVALID_ARGUMENT"),
    (OverloadError, Code.LIMIT, 503, "RESOURCE_EXHAUSTED"),
    (LimitError, Code.LIMIT, 413, "RESOURCE_EXHAUSTED"),
    (VersionNotLoadedError, Code.INTERNAL, 409, "FAILED_PRECONDITION"),
    (RpcTimeoutError, Code.TIMED_OUT, 504, "DEADLINE_EXCEEDED"),
    (NotServingError, Code.NOT_SERVING, 503, "UNAVAILABLE"),
    (ControlError, Code.INTERNAL, 500, "FAILED_PRECONDITION"),
    (RoleError, Code.NO_ACCESS, 403, "PERMISSION_DENIED"),
    (AccessError, Code.NO_ACCESS, 401, "UNAUTHENTICATED"),
    (CubeError, Code.INTERNAL, 500, "INTERNAL"),
)


def fault_of(error: BaseException) -> Fault:
    """The fault that stands for `error`; one that is no `CubeError` is logged with its traceback
    and told as "internal error", for its text is not meant for peers."""
    if isinstance(error, MethodNotFoundError):
        return Fault(error.code, 404, "NOT_FOUND", str(error))
    for error_class, code, http_status, grpc_status in _FAULTS:
        if isinstance(error, error_class):
            return Fault(code, http_status, grpc_status, str(error))
    log.error("a handler failed", exc_info=error)
    text = f"internal error ({type(error).__name__}); the server's log says more"
    return Fault(Code.INTERNAL, 500, "INTERNAL", text)


def fault_text(server_address: str, fault: Fault) -> str:
    """The text as brpc sends it: `[ip:port][E1002]…`."""
    return f"[{server_address}][E{int(fault.code)}]{fault.text}"
