"""Asks every server what it is and counts, every few seconds, whether anybody looks or not."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import httpx

from cube_core.conf.transfer_conf import TransferConf
from cube_core.endpoint import Endpoint
from cube_core.errors import RpcError
from cube_transfer.control_client import ServersHttp
from cube_transfer.page.ctr_addresses import CtrAddresses
from cube_transfer.page.history import WINDOW_S, History
from cube_transfer.page.readings import (
    Rates,
    Reading,
    added,
    ctr_reading,
    missing_by_slot,
    rates_between,
    server_reading,
)

_TIMEOUT = httpx.Timeout(2.0, connect=1.0)
_AT_ONCE_MAX = 32
_SLOT_READING_INTERVAL_S = 60.0

log = logging.getLogger(__name__)


@dataclass
class Sampled:
    """What is known of one server.

    Attributes:
        server_name: what its certificate must hold; "" for its host.
        is_asked: False of a name that has no address.
        reading: the last one; None before the first.
        rates: between the last two.
        error: why it did not answer the last time; "" when it did.
        failures: in a row.
        failing_since_s: Unix seconds of the first of them.
    """

    name: str
    endpoint: Endpoint
    read: Callable[[object, str, float], Reading]
    server_name: str = ""
    is_asked: bool = True
    reading: Reading | None = None
    rates: Rates | None = None
    error: str = ""
    failures: int = 0
    failing_since_s: float | None = None
    _earlier: deque[Reading] = field(
        default_factory=lambda: deque(maxlen=round(WINDOW_S / _SLOT_READING_INTERVAL_S))
    )

    def take(self, reading: Reading) -> None:
        before, self.reading = self.reading, reading
        self.rates = rates_between(before, reading) if before is not None else None
        self.error, self.failures, self.failing_since_s = "", 0, None
        if before is not None and before.started_at_s != reading.started_at_s:
            self._earlier.clear()
        oldest_due_s = reading.at_s - _SLOT_READING_INTERVAL_S
        if not self._earlier or self._earlier[-1].at_s <= oldest_due_s:
            self._earlier.append(reading)

    def fail(self, error: str) -> None:
        self.error, self.rates = error, None
        self.failures += 1
        if self.failing_since_s is None:
            self.failing_since_s = time.time()

    def missing_by_slot(self) -> list[float]:
        """Of the last minutes, for 100 rows."""
        if self.reading is None or not self._earlier:
            return []
        return missing_by_slot(self._earlier[0], self.reading)


class Sampler:
    """Keeps what all servers tell, and its history.

    Args:
        interval_s: between two requests to a server.
        http: shows the token that is needed to look.
    """

    def __init__(self, conf: TransferConf, http: ServersHttp, interval_s: float) -> None:
        self.interval_s = interval_s
        self.servers = [Sampled(each.name, each.endpoint, server_reading) for each in conf.replicas]
        named = [each for each in conf.ctr_servers if isinstance(each, Endpoint)]
        self.ctr_servers = [Sampled(str(each), each, ctr_reading) for each in named]
        self._ctr_addresses = CtrAddresses(conf.ctr_servers)
        self.history = History(interval_s)
        self._dict_name = conf.dict_name
        self._http = http
        self._at_once = asyncio.Semaphore(_AT_ONCE_MAX)

    async def run(self, on_sampled: Callable[[], None]) -> None:
        """Samples until cancelled, and calls back after each round."""
        while True:
            began_s = time.monotonic()
            await self.sample()
            on_sampled()
            await asyncio.sleep(max(0.1, began_s + self.interval_s - time.monotonic()))

    async def sample(self) -> None:
        """Asks every server once, several at a time; of the CTR servers those that are there."""
        self.ctr_servers = await self._ctr_servers_now()
        asked = [each for each in (*self.servers, *self.ctr_servers) if each.is_asked]
        await asyncio.gather(*(self._ask(each) for each in asked))
        self.history.add(self._figures())

    async def _ctr_servers_now(self) -> list[Sampled]:
        """A name that has no address has the place of a server that fails."""
        known = {each.name: each for each in self.ctr_servers}
        addresses, unknown = await self._ctr_addresses.look()
        servers = [
            known.get(str(each.endpoint))
            or Sampled(str(each.endpoint), each.endpoint, ctr_reading, each.server_name)
            for each in addresses
        ]
        for each in unknown:
            place = Endpoint(each.name.host, each.name.port)
            server = known.get(str(each.name)) or Sampled(
                str(each.name), place, ctr_reading, is_asked=False
            )
            server.fail(each.error)
            servers.append(server)
        self.history.forget(f"of {name}" for name in set(known) - {each.name for each in servers})
        return servers

    async def _ask(self, server: Sampled) -> None:
        async with self._at_once:
            try:
                response = await self._http.get(
                    server.endpoint, "/status", _TIMEOUT, server.server_name
                )
                server.take(server.read(_json(response), self._dict_name, time.monotonic()))
            except httpx.TimeoutException:
                server.fail(f"no answer within {_TIMEOUT.read:g} s")
            except (httpx.RequestError, RpcError) as error:
                server.fail(_reason(error))
            except Exception as error:
                # One server that answers strangely must not hide the others.
                log.exception("%s (%s): /status", server.name, server.endpoint)
                server.fail(str(error) or type(error).__name__)

    def _figures(self) -> dict[str, float | None]:
        figures: dict[str, float | None] = {}
        servers = [each.rates for each in self.servers if each.rates is not None]
        if servers:
            total = added(servers)
            figures |= {
                "requests": total.a_second.get("requests"),
                "keys": total.a_second.get("keys"),
                "missing": total.share("missing_keys", "keys"),
                "p50": total.percentile("seek", 0.5),
                "p99": total.percentile("seek", 0.99),
            }
        predictors = [each.rates for each in self.ctr_servers if each.rates is not None]
        if predictors:
            total = added(predictors)
            figures |= {
                "rows": total.a_second.get("rows"),
                "queue_p99": total.percentile("queue", 0.99),
                "seek_p99": total.percentile("seek", 0.99),
                "infer_p99": total.percentile("infer", 0.99),
            }
        for each in (*self.servers, *self.ctr_servers):
            if each.rates is not None:
                count = "keys" if each.read is server_reading else "rows"
                figures[f"of {each.name}"] = each.rates.a_second.get(count)
        return figures


def _reason(error: BaseException) -> str:
    """Of what the system says, where that is below it: "All connection attempts failed" says less
    than "connection refused"."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.errno:
            return os.strerror(below.errno).lower()
        below = below.__cause__ or below.__context__
    return str(error) or type(error).__name__


def _json(response: httpx.Response) -> object:
    """Raises RpcError: it is an error, or no JSON."""
    if response.status_code != httpx.codes.OK:
        hint = "; is the read token the same?" if response.status_code in (401, 403) else ""
        raise RpcError(f"/status: HTTP {response.status_code}{hint}")
    try:
        return response.json()
    except ValueError as error:
        raise RpcError("/status: the answer is no JSON") from error
