"""The servers that an address stands for: `list://`, `file://` and `http://`."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import NamedTuple

from cube_core.endpoint import Endpoint

WEIGHT_MAX = 1_000_000


class Server(NamedTuple):
    """A server and its weight among the replicas of its shard."""

    endpoint: Endpoint
    weight: int = 1


def servers_of(address: str, field: str) -> list[Server]:
    """Resolves an address.

    `list://host:port,host:port` (also without the scheme), `file:///path` with a `host:port` a
    line (`#` starts a comment) and `http://name:port`, all addresses of a DNS name. A weight may
    follow `host:port` after a blank: `host:port 3`. A server named twice counts once.

    Raises:
        ValueError: malformed, or it names no server; names `field`.
        OSError: the file cannot be read, or the name not be resolved.
    """
    scheme, separator, rest = address.partition("://")
    if not separator or scheme == "list":
        entries = (rest if separator else address).split(",")
    elif scheme == "file":
        lines = Path(rest).read_text(encoding="utf-8").splitlines()
        entries = [line.partition("#")[0] for line in lines]
        field = f"{field} ({rest})"
    elif scheme == "http":
        return _resolved(rest, field)
    else:
        raise ValueError(
            f"{field}: {scheme}:// is not supported; write list://host:port,… or file://path or"
            " http://name:port"
        )
    servers = [_server(entry, field) for entry in entries if entry.strip()]
    return _unique(servers, field)


def check_address(address: str, field: str) -> None:
    """Checks the form of an address, without reading a file or resolving a name.

    Raises:
        ValueError: malformed; names `field`.
    """
    scheme, separator, rest = address.partition("://")
    if separator and scheme == "file":
        if not rest:
            raise ValueError(f"{field}: file:// needs a path")
    elif separator and scheme == "http":
        _host_and_port(rest, field)
    else:
        servers_of(address, field)


def file_of(address: str) -> Path | None:
    """The file that a `file://` address names."""
    scheme, _, rest = address.partition("://")
    return Path(rest) if scheme == "file" else None


def is_name(address: str) -> bool:
    """Whether it is a DNS name, that may stand for other servers at any time."""
    return address.startswith("http://")


def _server(entry: str, field: str) -> Server:
    text, _, weight = entry.strip().partition(" ")
    weight = weight.strip()
    if weight and not (weight.isdecimal() and 1 <= int(weight) <= WEIGHT_MAX):
        raise ValueError(f"{field}: weight {weight!r} is not a whole number from 1 to {WEIGHT_MAX}")
    try:
        return Server(Endpoint.parse(text), int(weight or 1))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _host_and_port(rest: str, field: str) -> Endpoint:
    try:
        return Endpoint.parse(rest.rstrip("/"))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error


def _resolved(rest: str, field: str) -> list[Server]:
    name = _host_and_port(rest, field)
    try:
        found = socket.getaddrinfo(name.host, name.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise ValueError(f"{field}: {name.host!r} is no name: {error}") from error
    hosts = sorted({str(address[0]) for *_, address in found})
    return _unique([Server(Endpoint(host, name.port)) for host in hosts], field)


def _unique(servers: list[Server], field: str) -> list[Server]:
    if not servers:
        raise ValueError(f"{field}: names no server")
    return list({server.endpoint: server for server in servers}.values())
