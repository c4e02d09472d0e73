"""Waiting for a condition with a deadline, in place of sleeps that hope."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_POLL_INTERVAL_S = 0.02


def wait_until(
    condition: Callable[[], T], timeout_s: float = 20.0, what: str = "the condition"
) -> T:
    """Calls `condition` until it returns something true, and returns that.

    Exceptions of `condition` count as "not yet"; the last one is chained when time is up.

    Raises:
        TimeoutError: names `what`.
    """
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    last_error: Exception | None = None
    while True:
        try:
            result = condition()
            if result:
                return result
            last_error = None
        except Exception as error:
            last_error = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {timeout_s} s") from last_error
        pause.wait(_POLL_INTERVAL_S)
