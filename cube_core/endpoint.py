"""Network addresses, `host:port`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

_DNS_SCHEME = "dns://"


class Endpoint(NamedTuple):
    """One address of a server."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Reads "host:port".

        Raises:
            ValueError: no port, or a port outside 1 to 65535.
        """
        host, _, port = text.strip().rpartition(":")
        if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
            raise ValueError(f"{text!r} is not host:port with a port from 1 to 65535")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class DnsName:
    """`dns://host:port`: a server at each address that the name has at the time."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> DnsName:
        """Reads "dns://host:port".

        Raises:
            ValueError: as `Endpoint.parse`.
        """
        return cls(*Endpoint.parse(text.strip().removeprefix(_DNS_SCHEME)))

    @staticmethod
    def is_meant(text: str) -> bool:
        """Whether a text is one, or tries to be."""
        return text.strip().startswith(_DNS_SCHEME)

    def __str__(self) -> str:
        return f"{_DNS_SCHEME}{self.host}:{self.port}"


def parse_endpoint_list(text: str, field: str) -> list[Endpoint]:
    """Reads "list://host:port,host:port".

    Raises:
        ValueError: another scheme, an empty list or a malformed entry; names `field`.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "list":
        raise ValueError(f"{field}: {scheme}:// is not supported; write list://host:port,…")
    entries = [entry for entry in (rest if separator else text).split(",") if entry.strip()]
    if not entries:
        raise ValueError(f"{field}: names no server")
    try:
        return [Endpoint.parse(entry) for entry in entries]
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from error
