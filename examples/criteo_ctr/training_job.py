"""The training job: each of its passes is trained, exported and announced in the donefile."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.criteo_ctr.example import Example
from examples.criteo_ctr.export import ExportedPass
from examples.criteo_ctr.features import Rows
from examples.criteo_ctr.models import unsplit_probabilities
from examples.criteo_ctr.quality import quality
from examples.criteo_ctr.train import Trainer


class TrainingJob:
    """Trains pass after pass with one network and writes them under `output_dir`."""

    def __init__(self, console: Console, example: Example, output_dir: Path, seed: int) -> None:
        self._console = console
        self._export = example.export
        self._output_dir = output_dir
        self._trainer = Trainer(example.make_network, seed)

    def run_pass(self, pass_id: str, rows: Rows) -> ExportedPass:
        """Trains one epoch over nine tenths of the rows, exports it, and prints how well it
        predicts the other tenth."""
        train_rows, test_rows = rows.held_out()
        begin_s = time.monotonic()
        with progress_bar(self._console) as bar:
            task = bar.add_task(f"training pass {pass_id}", total=len(train_rows))
            self._trainer.train_pass(train_rows, lambda count: bar.advance(task, count))
        trained_s = time.monotonic()
        with self._console.status(f"exporting pass {pass_id}: embedding, dense network, donefile"):
            exported = self._export(self._trainer.network, self._output_dir, pass_id)
        fit = quality(
            test_rows.labels, unsplit_probabilities(exported.unsplit_dir, test_rows)[:, 1]
        )
        self._console.print(
            f"pass {pass_id}: {len(train_rows)} rows trained in {trained_s - begin_s:.1f} s,"
            f" exported in {exported.announced_at_s - trained_s:.1f} s;"
            f" on {len(test_rows)} rows held out AUC {fit.auc:.3f}, log loss {fit.log_loss:.3f}",
            highlight=False,
        )
        return exported


def progress_bar(console: Console) -> Progress:
    """A bar of rows that vanishes when it is done; none where it could not be redrawn."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
