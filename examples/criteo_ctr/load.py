"""Requests that go on while a pass is switched, and what each of their answers was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from examples.criteo_ctr.features import Rows

BATCH_ROWS = 8
REQUESTS_PER_SECOND = 25.0
_STOP_TIMEOUT_S = 30.0


class Predictor(Protocol):
    """What the load asks: the CTR client, over any of its protocols."""

    def predict(
        self, sparse_ids: NDArray[np.int64], dense: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """int64[n, 26] and float32[n, 13] to probabilities float32[n, 2]."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Answer:
    """One request's end.

    Args:
        at_s: time.monotonic() when it ended.
        rows: the rows asked for.
        probabilities: float32[n, 2], or None when it failed.
        error: why it failed, else "".
    """

    at_s: float
    rows: slice
    probabilities: NDArray[np.float32] | None
    error: str = ""


class Load:
    """One thread a predictor, each asking for the rows in turn at a steady rate."""

    def __init__(self, rows: Rows, connect: Sequence[Callable[[], Predictor]]) -> None:
        self._rows = rows
        self._stopping = threading.Event()
        self._answers: list[Answer] = []
        self._threads = [
            # What interrupts the start of them must not wait for those that run already.
            threading.Thread(target=self._ask, args=(factory,), name=f"load-{number}", daemon=True)
            for number, factory in enumerate(connect)
        ]

    def answers(self) -> list[Answer]:
        """Every answer so far, in the order of their ends."""
        return self._answers.copy()

    def _ask(self, connect: Callable[[], Predictor]) -> None:
        predictor: Predictor | None = None
        begin = 0
        next_s = time.monotonic()
        while not self._stopping.wait(max(0.0, next_s - time.monotonic())):
            next_s = max(next_s + 1.0 / REQUESTS_PER_SECOND, time.monotonic())
            rows = slice(begin, min(begin + BATCH_ROWS, len(self._rows)))
            begin = rows.stop % len(self._rows)
            try:
                predictor = predictor or connect()
                probabilities = predictor.predict(
                    self._rows.sparse_ids[rows], self._rows.dense[rows]
                )
            except Exception as error:  # whatever it is, it is a request that was not answered
                self._answers.append(Answer(time.monotonic(), rows, None, str(error)))
            else:
                self._answers.append(Answer(time.monotonic(), rows, probabilities))
        if predictor is not None:
            predictor.close()

    def __enter__(self) -> Load:
        try:
            for thread in self._threads:
                thread.start()
        except BaseException:
            self._stopping.set()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_TIMEOUT_S)


@dataclass
class Tally:
    """How many requests each pass answered, and how many nothing that was trained explains."""

    by_pass: list[int]
    first_at_s: list[float | None]
    other: int = 0
    failed: int = 0
    problems: list[str] = field(default_factory=list)


def classify(
    answers: Sequence[Answer], references: Sequence[NDArray[np.float32]], tolerance: float
) -> Tally:
    """Compares every answer with the probabilities computed directly.

    Args:
        references: float32[n, 2] for each pass; an answer belongs to a pass when *all* of its rows
            agree with it, so one that mixes two passes belongs to none.
        tolerance: largest difference of a probability that still agrees.
    """
    tally = Tally([0] * len(references), [None] * len(references))
    for answer in answers:
        if answer.probabilities is None:
            tally.failed += 1
            tally.problems.append(f"failed: {answer.error}")
            continue
        distances = [
            largest_difference(answer.probabilities, reference[answer.rows])
            for reference in references
        ]
        closest = int(np.argmin(distances))
        if distances[closest] > tolerance:
            tally.other += 1
            tally.problems.append(f"{answer.rows}: off by {distances[closest]:.2e} from any pass")
            continue
        tally.by_pass[closest] += 1
        if tally.first_at_s[closest] is None:
            tally.first_at_s[closest] = answer.at_s
    return tally


def largest_difference(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """Largest absolute difference; infinite when the shapes differ or a value is not finite."""
    if left.shape != right.shape or not (np.isfinite(left).all() and np.isfinite(right).all()):
        return float("inf")
    return float(np.abs(left - right).max(initial=0.0))


def distinguishable(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    """The smallest difference between two passes' answers to one batch of the load: how far every
    answer tells them apart."""
    return min(
        largest_difference(left[begin : begin + BATCH_ROWS], right[begin : begin + BATCH_ROWS])
        for begin in range(0, len(left), BATCH_ROWS)
    )
