"""What the demo fails on."""

from __future__ import annotations

import io
import re
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from examples.criteo_ctr.demo import DemoError, check_answers, check_auc
from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.load import Tally
from examples.criteo_ctr.service import Service
from examples.criteo_ctr.takeover import takeover_problems, takeover_table

ROWS = Rows(np.zeros((250, 26), np.int64), np.zeros((250, 13), np.float32), np.zeros(250, np.int64))
REFERENCE = np.full((250, 2), 0.5, np.float32)


class _Answers:
    """Stands for a service whose answers are off by `error` in one row of one protocol."""

    def __init__(self, error: float, protocol: str) -> None:
        self._error = error
        self._protocol = protocol

    def connector(self, protocol: str) -> object:
        self._asked = protocol
        return lambda: self

    def predict(
        self, sparse_ids: NDArray[np.int64], dense: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        answers: NDArray[np.float32] = REFERENCE[: len(sparse_ids)].copy()
        if self._asked == self._protocol:
            answers[-1, 1] += np.float32(self._error)
        return answers

    def close(self) -> None:
        pass


def _service(error: float, protocol: str) -> Service:
    return cast(Service, _Answers(error, protocol))


@pytest.mark.parametrize("protocol", ["baidu_std", "grpc", "http"])
def test_answers_off_by_1e_5_fail_and_name_the_protocol(protocol: str) -> None:
    console = Console(quiet=True)
    check_answers(console, _service(5e-6, protocol), ROWS, REFERENCE)
    with pytest.raises(DemoError, match=f"{protocol} differs from Paddle"):
        check_answers(console, _service(2e-5, protocol), ROWS, REFERENCE)
    with pytest.raises(DemoError, match=f"{protocol} differs from Paddle"):
        check_answers(console, _service(float("nan"), protocol), ROWS, REFERENCE)


@pytest.mark.parametrize("protocol", ["baidu_std", "grpc", "http"])
def test_another_auc_than_that_of_paddle_fails_and_names_the_protocol(protocol: str) -> None:
    console = Console(quiet=True)
    rows = Rows(ROWS.sparse_ids, ROWS.dense, (np.arange(len(ROWS)) % 3 == 0).astype(np.int64))
    directly = {"Paddle": REFERENCE}
    check_auc(console, _service(0.0, protocol), rows, directly)
    with pytest.raises(DemoError, match=rf"AUC over {protocol} is 0\.50"):
        check_auc(console, _service(1e-6, protocol), rows, directly)


@pytest.mark.parametrize(
    ("tally", "problem"),
    [
        (Tally([5, 0], [1.0, None]), "no request was answered with pass 2"),
        (Tally([0, 5], [None, 1.0]), "no request was answered with pass 1"),
        (Tally([5, 5], [1.0, 2.0], other=1, problems=["off by 0.1"]), "off by 0.1"),
        (Tally([5, 5], [1.0, 2.0], failed=1, problems=["failed: gone"]), "failed: gone"),
    ],
)
def test_problems_of_a_takeover_are_named(tally: Tally, problem: str) -> None:
    assert takeover_problems(tally) == [problem]


def test_a_clean_takeover_has_no_problems() -> None:
    tally = Tally([100, 50], [1.0, 4.5])
    assert takeover_problems(tally) == []
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(takeover_table(tally, announced_at_s=2.0))
    text = console.export_text()
    assert re.search(r"answered with pass 1\s+│\s+100\b", text)
    assert re.search(r"donefile to first answer of pass 2\s+│\s+2\.50 s", text)
