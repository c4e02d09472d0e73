"""A new model is tried out in a thread, beside the one that is served."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

_REST_S = 0.001
_TIMED_RUNS = 7
_SWITCH_CANDIDATES = (1, 2, 4, 8, 16, 32)

Run = Callable[[bool, int], object]
"""Runs a model once, with oneDNN or without, on so many rows."""


def let_requests_pass() -> None:
    """Between two runs, as Paddle holds the GIL for the whole of one: a request need not wait for
    more than that one."""
    time.sleep(_REST_S)


class OnednnSwitch:
    """The number of rows from which oneDNN takes less CPU time than Paddle's own kernels.

    It is measured at the first model of a program, as it does not depend on weights: the passes
    that follow are of the same program, and each run for it is one that requests wait for.

    Args:
        never: the number when oneDNN is slower for each of the numbers that were measured.
    """

    def __init__(self, never: int) -> None:
        self._never = never
        self._by_program: dict[bytes, int] = {}

    def rows_min(self, program: Path, run: Run) -> int:
        """From what was measured for the program in this file, or by runs of the model."""
        digest = hashlib.sha256(program.read_bytes()).digest()
        if digest not in self._by_program:
            self._by_program[digest] = next(
                (
                    rows
                    for rows in _SWITCH_CANDIDATES
                    if _cpu_ns(run, True, rows) < _cpu_ns(run, False, rows)
                ),
                self._never,
            )
        return self._by_program[digest]


def _cpu_ns(run: Run, with_onednn: bool, rows: int) -> int:
    times_ns = []
    for _ in range(_TIMED_RUNS):
        start_ns = time.thread_time_ns()
        run(with_onednn, rows)
        times_ns.append(time.thread_time_ns() - start_ns)
        let_requests_pass()
    return min(times_ns)
