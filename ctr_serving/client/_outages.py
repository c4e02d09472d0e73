"""Servers that failed lately: others are asked first, until one request finds them back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError, RpcError, RpcTimeoutError
from cube_core.wire.faults import Code

PAUSE_MIN_S = 0.1
PAUSE_MAX_S = 3.0
"""A server that failed is tried again after the one, then ever later up to the other."""


@dataclass
class _Outage:
    pause_s: float
    retry_at_s: float


class Outages:
    """What is known of the servers of one variant. Threads share it without a lock: a trial more or
    less does no harm.

    Args:
        trial_s: how long a trial may go without its end being known, such as a connect timeout.
    """

    def __init__(self, trial_s: float) -> None:
        self._trial_s = trial_s
        self._by_server: dict[Endpoint, _Outage] = {}

    def in_order(self, servers: Sequence[Endpoint], now_s: float) -> Sequence[Endpoint]:
        """The servers as they come, but those that failed at the end. One that is the first, and is
        due to be tried again, stays there for this one request."""
        if not self._by_server:
            return servers
        down = {server for server in servers if server in self._by_server}
        if servers[0] in down and self._takes_trial(servers[0], now_s):
            down.discard(servers[0])
        return [*(each for each in servers if each not in down), *(e for e in servers if e in down)]

    @contextlib.contextmanager
    def watched(self, server: Endpoint) -> Iterator[None]:
        """Learns from how a request to the server ends. One that has no model yet, or ends, counts
        as if it could not be reached: another one is to be asked."""
        try:
            yield
        except (ConnectError, RpcTimeoutError):
            self.failed(server, time.monotonic())
            raise
        except RpcError as error:
            if error.code == Code.NOT_SERVING:
                self.failed(server, time.monotonic())
                raise ConnectError(str(error), error.code) from error
            # It refused the request, so it is there.
            self.answered(server)
            raise
        self.answered(server)

    def failed(self, server: Endpoint, now_s: float) -> None:
        outage = self._by_server.get(server)
        # Requests that were sent before the outage was known say nothing new.
        if outage is None:
            self._by_server[server] = _Outage(PAUSE_MIN_S, now_s + PAUSE_MIN_S)
        else:
            outage.retry_at_s = max(outage.retry_at_s, now_s + outage.pause_s)

    def answered(self, server: Endpoint) -> None:
        self._by_server.pop(server, None)

    def _takes_trial(self, server: Endpoint, now_s: float) -> bool:
        outage = self._by_server.get(server)
        if outage is None:
            return True
        if now_s < outage.retry_at_s:
            return False
        outage.pause_s = min(2 * outage.pause_s, PAUSE_MAX_S)
        outage.retry_at_s = now_s + max(outage.pause_s, self._trial_s)
        return True
