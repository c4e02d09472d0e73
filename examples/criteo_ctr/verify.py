"""The same rows answered by the service and by Paddle directly, side by side: each probability,
and how well all of them together tell clicks apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.load import Predictor, largest_difference
from examples.criteo_ctr.quality import quality

TOLERANCE = 1e-5
AUC_TOLERANCE = 1e-6

_BATCH_ROWS = 100
_ROWS_SHOWN = 6


def ask(
    rows: Rows,
    connect: Callable[[], Predictor],
    on_rows: Callable[[int], object] = lambda row_count: None,
) -> NDArray[np.float32]:
    """Probabilities float32[n, 2] of all rows, asked for in batches.

    Raises:
        CubeError: a request failed.
    """
    predictor = connect()
    try:
        answers = []
        for begin in range(0, len(rows), _BATCH_ROWS):
            batch = rows.take(slice(begin, begin + _BATCH_ROWS))
            answers.append(predictor.predict(batch.sparse_ids, batch.dense))
            on_rows(len(batch))
        return np.concatenate(answers)
    finally:
        predictor.close()


def differences(
    reference: NDArray[np.float32], served: Mapping[str, NDArray[np.float32]]
) -> dict[str, float]:
    """Largest difference to the reference float32[n, 2] over all rows, for each protocol."""
    return {name: largest_difference(answer, reference) for name, answer in served.items()}


def comparison(reference: NDArray[np.float32], served: Mapping[str, NDArray[np.float32]]) -> Table:
    """The first rows' prob1 by each protocol and by Paddle, and the largest difference of all."""
    table = Table(title=f"prob1 of the first of {len(reference)} rows, and the largest difference")
    table.add_column("row", justify="right")
    for name in (*served, "Paddle, unsplit model"):
        table.add_column(name, justify="right")
    for row in range(min(_ROWS_SHOWN, len(reference))):
        columns = [*served.values(), reference]
        table.add_row(str(row), *(f"{column[row, 1]:.7f}" for column in columns))
    table.add_section()
    worst = [f"{value:.1e}" for value in differences(reference, served).values()]
    table.add_row("max |Δ|", *worst, "")
    return table


def auc_table(labels: NDArray[np.int64], answers: Mapping[str, NDArray[np.float32]]) -> Table:
    """AUC of probabilities float32[n, 2] for labels[n], by who gave them."""
    table = Table(title=f"AUC on {len(labels)} rows held out")
    table.add_column("by")
    table.add_column("AUC", justify="right")
    for name, auc in aucs(labels, answers).items():
        table.add_row(name, f"{auc:.7f}")
    return table


def aucs(labels: NDArray[np.int64], answers: Mapping[str, NDArray[np.float32]]) -> dict[str, float]:
    """AUC of each answer float32[n, 2] for labels[n]."""
    return {name: quality(labels, answer[:, 1]).auc for name, answer in answers.items()}
