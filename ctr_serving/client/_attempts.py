"""What one request does next: which server is asked first, again, or besides. No IO."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ctr_serving.client._routes import Variant
from cube_core.endpoint import Endpoint
from cube_core.errors import RpcTimeoutError


class Attempts:
    """The servers of one request, in the order in which they are asked.

    Args:
        now_s: time.monotonic().
    """

    def __init__(self, variant: Variant, now_s: float) -> None:
        options = variant.options
        self.can_hedge = variant.can_hedge
        self._variant = variant
        self._servers: Iterator[Endpoint] = variant.servers(now_s)
        self._deadline_s = now_s + options.timeout_ms / 1000
        self._retries_left = options.retry_count
        self._hedges_left = variant.hedge_count
        self._hedge_at_s = self._next_hedge_s(now_s)
        variant.hedges.count_request()

    def first(self) -> Endpoint:
        """The server to ask."""
        return next(self._servers)

    def retry(self) -> Endpoint | None:
        """The server to ask when another could not be reached; None when no attempt is left."""
        if not self._retries_left:
            return None
        self._retries_left -= 1
        return next(self._servers)

    def hedge(self, now_s: float) -> Endpoint | None:
        """The server to ask besides, when an answer has been waited for for long enough."""
        if now_s < self._hedge_at_s:
            return None
        self._hedges_left -= 1
        self._hedge_at_s = self._next_hedge_s(now_s)
        return next(self._servers) if self._variant.hedges.take() else None

    def remaining_s(self, endpoint: Endpoint, now_s: float) -> float:
        """The time that is left for an answer of `endpoint`.

        Raises:
            RpcTimeoutError: none is left.
        """
        remaining_s = self._deadline_s - now_s
        if remaining_s <= 0:
            timeout_ms = self._variant.options.timeout_ms
            raise RpcTimeoutError(f"{endpoint}: no answer within {timeout_ms} ms")
        return remaining_s

    def wait_s(self, now_s: float) -> float | None:
        """How long to wait before `hedge` has something to say; None: for ever."""
        return None if math.isinf(self._hedge_at_s) else max(0.0, self._hedge_at_s - now_s)

    def _next_hedge_s(self, now_s: float) -> float:
        if not self._hedges_left:
            return math.inf
        return now_s + self._variant.options.hedge_timeout_ms / 1000
