"""Every answer is accounted for: pass 1, pass 2, anything else, failed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from cube_core.errors import PredictionError
from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.load import Answer, Load, Predictor, classify, largest_difference
from tests.waiting import wait_until

TOLERANCE = 1e-5


def _probabilities(click: list[float]) -> NDArray[np.float32]:
    column = np.array(click, np.float32)
    return np.stack([1 - column, column], axis=1)


FIRST = _probabilities([0.1, 0.2, 0.3, 0.4])
SECOND = _probabilities([0.5, 0.6, 0.7, 0.8])


def _answer(at_s: float, probabilities: NDArray[np.float32] | None, error: str = "") -> Answer:
    return Answer(at_s, slice(0, 4), probabilities, error)


def test_each_kind_of_answer_is_counted() -> None:
    mixed = np.concatenate([FIRST[:2], SECOND[2:]])
    tally = classify(
        [
            _answer(1.0, FIRST),
            _answer(2.0, FIRST + np.float32(5e-6)),
            _answer(3.0, SECOND),
            _answer(4.0, mixed),
            _answer(5.0, None, "no route"),
            _answer(6.0, SECOND),
        ],
        [FIRST, SECOND],
        TOLERANCE,
    )
    assert tally.by_pass == [2, 2]
    assert tally.first_at_s == [1.0, 3.0]
    assert (tally.other, tally.failed) == (1, 1)
    assert "off by" in tally.problems[0]
    assert tally.problems[1] == "failed: no route"


@pytest.mark.parametrize(
    "wrong",
    [FIRST[:3], FIRST + np.float32(1e-4), np.full_like(FIRST, np.nan), np.zeros_like(FIRST)],
    ids=["too few rows", "off by more than the tolerance", "not a number", "zeros"],
)
def test_a_wrong_answer_belongs_to_no_pass(wrong: NDArray[np.float32]) -> None:
    tally = classify([_answer(1.0, wrong)], [FIRST, SECOND], TOLERANCE)
    assert tally.by_pass == [0, 0]
    assert tally.other == 1


def test_largest_difference() -> None:
    assert largest_difference(FIRST, FIRST) == 0.0
    assert largest_difference(FIRST, SECOND) == pytest.approx(0.4)
    assert largest_difference(FIRST, FIRST[:1]) == float("inf")


class _Echo:
    """Answers with the first sparse id as the probability of a click, and fails on id 13."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def predict(
        self, sparse_ids: NDArray[np.int64], dense: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        if 13 in sparse_ids:
            raise PredictionError("shard 1 cannot be asked")
        return _probabilities((sparse_ids[:, 0] / 100).tolist())

    def close(self) -> None:
        self.closed.set()


def _connector(echo: _Echo) -> Callable[[], Predictor]:
    return lambda: echo


def test_load_asks_for_all_rows_and_records_failures() -> None:
    count = 20
    rows = Rows(
        np.repeat(np.arange(count), 26).reshape(count, 26),
        np.zeros((count, 13), np.float32),
        np.zeros(count, np.int64),
    )
    echoes = [_Echo(), _Echo()]

    with Load(rows, [_connector(echo) for echo in echoes]) as load:
        wait_until(lambda: len(load.answers()) >= 12, what="both threads asking")
    answers = load.answers()
    reference = _probabilities([row / 100 for row in range(count)])
    tally = classify(answers, [reference], TOLERANCE)
    assert {(answer.rows.start, answer.rows.stop) for answer in answers} == {
        (0, 8),
        (8, 16),
        (16, 20),
    }
    assert tally.failed == sum(answer.rows.start == 8 for answer in answers) > 0
    assert tally.by_pass[0] == len(answers) - tally.failed
    assert all(echo.closed.is_set() for echo in echoes)
