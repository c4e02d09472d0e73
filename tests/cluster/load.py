"""Seeks without a pause, while servers are restarted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cube_api import CubeClient
from tests.cluster.site import TIMEOUT_S
from tests.waiting import wait_until

KEYS = np.arange(1, 101, dtype=np.uint64)


class Load:
    """Seeks of KEYS of the dict `d` without a pause; what failed is kept."""

    def __init__(self, cube_conf: Path) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._cube_conf = cube_conf
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with CubeClient(self._cube_conf) as cube:
            while not self._stopping.is_set():
                try:
                    _, status = cube.seek("d", KEYS)
                    assert (status == 0).all()
                    self.answered += 1
                except Exception as error:
                    self.failures.append(str(error))

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._thread.join()

    def wait_for_more(self, count: int = 100) -> None:
        """Waits for so many further answers."""
        reached = self.answered + count
        wait_until(lambda: self.answered > reached or self.failures, TIMEOUT_S, "answers")
