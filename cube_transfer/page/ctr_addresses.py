"""Where the CTR servers are: those that transfer.conf names, and those behind its DNS names."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from cube_core.endpoint import DnsName, Endpoint

_TIMEOUT_S = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CtrAddress:
    """One CTR server; `server_name` is what its certificate must hold, "" for its host."""

    endpoint: Endpoint
    server_name: str = ""


@dataclass
class CtrName:
    """The servers behind one name.

    Attributes:
        found: those of the last answer that named any.
        error: why there is no newer answer; "" when there is.
    """

    name: DnsName
    found: tuple[CtrAddress, ...] = ()
    error: str = ""
    _asking: asyncio.Task[tuple[CtrAddress, ...]] | None = field(default=None, repr=False)

    async def resolve(self) -> None:
        """Asks anew. A resolver that hangs is waited for no longer than a server, and asked once
        at a time."""
        if self._asking is None:
            self._asking = asyncio.create_task(_addresses(self.name))
        done, _ = await asyncio.wait({self._asking}, timeout=_TIMEOUT_S)
        if not done:
            self._note(f"{self.name.host}: no answer within {_TIMEOUT_S:g} s")
            return
        asked, self._asking = self._asking, None
        try:
            self.found, self.error = asked.result(), ""
        except OSError as error:
            self._note(f"{self.name.host}: {error.strerror or error}")

    def _note(self, error: str) -> None:
        if not self.error:
            log.warning("%s: %s", self.name, error)
        self.error = error


class CtrAddresses:
    """All of them, in the order of transfer.conf; those of a name by address."""

    def __init__(self, places: Sequence[Endpoint | DnsName]) -> None:
        self._places = [
            CtrName(place) if isinstance(place, DnsName) else CtrAddress(place) for place in places
        ]

    async def look(self) -> tuple[list[CtrAddress], list[CtrName]]:
        """The servers that there are now, and the names that nobody is known behind."""
        names = [each for each in self._places if isinstance(each, CtrName)]
        await asyncio.gather(*(name.resolve() for name in names))
        found: dict[Endpoint, CtrAddress] = {}
        for place in self._places:
            for each in place.found if isinstance(place, CtrName) else (place,):
                found.setdefault(each.endpoint, each)
        return list(found.values()), [name for name in names if not name.found]


async def _addresses(name: DnsName) -> tuple[CtrAddress, ...]:
    found = await asyncio.get_running_loop().getaddrinfo(
        name.host, name.port, family=socket.AF_INET, type=socket.SOCK_STREAM
    )
    hosts = sorted({str(address[0]) for *_, address in found}, key=socket.inet_aton)
    return tuple(CtrAddress(Endpoint(host, name.port), name.host) for host in hosts)
