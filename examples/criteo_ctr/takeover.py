"""A second pass is trained and taken over while requests go on; every answer is accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ctr_serving.client import PROTOCOLS
from cube_core.errors import CubeError
from examples.criteo_ctr.export import ExportedPass
from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.load import Load, Tally, classify, distinguishable
from examples.criteo_ctr.models import unsplit_probabilities
from examples.criteo_ctr.service import Service
from examples.criteo_ctr.verify import TOLERANCE

_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1
_LOAD_AFTER_SWITCH_S = 2.0
_PROBLEMS_SHOWN = 5


class TakeoverError(CubeError):
    """Nothing can be said about the takeover."""


def watch_takeover(
    service: Service,
    rows: Rows,
    served: NDArray[np.float32],
    train_next: Callable[[], ExportedPass],
) -> tuple[Tally, ExportedPass]:
    """Asks for `rows` over every protocol while `train_next` writes the next pass, and until some
    time after its first answer, or until it was waited for in vain.

    Args:
        served: float32[n, 2], what the pass that is served now answers for `rows`.

    Raises:
        TakeoverError: the two passes cannot be told apart by their answers.
        ServiceError: a process of the service ended.
    """
    with Load(rows, [service.connector(protocol) for protocol in PROTOCOLS]) as load:
        exported = train_next()
        trained = unsplit_probabilities(exported.unsplit_dir, rows)
        if distinguishable(served, trained) <= 2 * TOLERANCE:
            raise TakeoverError("the passes answer alike, so no answer tells which one gave it")
        _wait_for_second(service, load, [served, trained])
    return classify(load.answers(), [served, trained], TOLERANCE), exported


def _wait_for_second(service: Service, load: Load, references: list[NDArray[np.float32]]) -> None:
    pause = threading.Event()
    deadline = time.monotonic() + _TIMEOUT_S
    seen = 0
    while time.monotonic() < deadline:
        service.check_alive()
        answers = load.answers()
        if classify(answers[seen:], references, TOLERANCE).by_pass[1]:
            pause.wait(_LOAD_AFTER_SWITCH_S)
            return
        seen = len(answers)
        pause.wait(_POLL_INTERVAL_S)


def takeover_table(tally: Tally, announced_at_s: float) -> Table:
    """What the requests were answered with, and how long the second pass took to arrive."""
    table = Table(title="requests while pass 2 was taken over", show_header=False)
    table.add_row("answered with pass 1", str(tally.by_pass[0]))
    table.add_row("answered with pass 2", str(tally.by_pass[1]))
    table.add_row("answered with anything else", str(tally.other))
    table.add_row("failed", str(tally.failed))
    first_at_s = tally.first_at_s[1]
    seconds = "never" if first_at_s is None else f"{first_at_s - announced_at_s:.2f} s"
    table.add_row("donefile to first answer of pass 2", seconds)
    return table


def takeover_problems(tally: Tally) -> list[str]:
    """Why the takeover did not go as it must; empty when it did."""
    problems = tally.problems[:_PROBLEMS_SHOWN]
    problems += [
        f"no request was answered with pass {number}"
        for number, count in enumerate(tally.by_pass, start=1)
        if not count
    ]
    return problems
