"""`make demo`: trains, exports, builds, ships, serves and checks the Criteo example."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from ctr_serving.client import PROTOCOLS
from cube_core import command_line, log
from cube_core.errors import CubeError
from examples.criteo_ctr import interrupts
from examples.criteo_ctr.example import CRITEO, Example
from examples.criteo_ctr.features import Rows, read_training_rows
from examples.criteo_ctr.generator import draw_rows, write_rows
from examples.criteo_ctr.models import unsplit_probabilities
from examples.criteo_ctr.quality import quality
from examples.criteo_ctr.run_directory import CLUSTER_FILE, prepare
from examples.criteo_ctr.service import Service
from examples.criteo_ctr.takeover import takeover_problems, takeover_table, watch_takeover
from examples.criteo_ctr.training_job import TrainingJob, progress_bar
from examples.criteo_ctr.verify import (
    AUC_TOLERANCE,
    TOLERANCE,
    ask,
    auc_table,
    aucs,
    comparison,
    differences,
)

_ROWS_ASKED_MAX = 2000
_SERVED_TIMEOUT_S = 60.0
_POLL_INTERVAL_S = 0.1

app = typer.Typer(add_completion=False)


class Model(str, Enum):
    """The examples there are."""

    criteo = "criteo"
    deepfm = "deepfm"


class DemoError(CubeError):
    """The demo did not show what it has to show."""


@app.command(
    epilog="Example: python -m examples.criteo_ctr.demo --data=train.csv --run_dir=run/mine"
)
def demo(
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Criteo rows with labels, csv or tsv; else rows are drawn."),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option("--run_dir", help="Where all is written; run/demo-<time> when not given."),
    ] = None,
    model: Annotated[
        Model, typer.Option("--model", help="Whose example: examples/<model>_ctr.")
    ] = Model.criteo,
    rows: Annotated[int, typer.Option("--rows", min=100, help="Rows of a pass, at most.")] = 30_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the rows and the training.")] = 7,
) -> None:
    """Trains two passes of a CTR network on Criteo rows and serves them, all on this machine.

    Exit code 1: an answer differs from Paddle's own by 1e-5 or more, or the AUC on held-out rows by
    1e-6 or more; a process or a request fails; or a request is answered with neither pass while the
    second is taken over.
    """
    interrupts.install()
    # Importing Paddle sets the root logger to tell every HTTP request.
    log.configure("demo", logging.WARNING)
    console = Console()
    directory = (run_dir or Path("run") / f"demo-{datetime.now():%Y%m%d-%H%M%S}").resolve()
    begin_s = time.monotonic()
    exit_code = 0
    try:
        example = _example(model)
        _run(console, example, directory, data.resolve() if data else None, rows, seed)
        console.print(f"all answers were right; {time.monotonic() - begin_s:.0f} s in all")
    except DemoError as error:
        console.print(f"failed: {error}", style="red", markup=False)
        exit_code = 1
    except interrupts.Interrupted as interrupted:
        console.print(f"{interrupted}: everything that was started is stopped", style="red")
        exit_code = interrupted.exit_code
    finally:
        console.print(f"logs of every process: {directory}", soft_wrap=True, markup=False)
    raise typer.Exit(exit_code)


def _example(model: Model) -> Example:
    if model is Model.criteo:
        return CRITEO
    from examples.deepfm_ctr.example import DEEPFM

    return DEEPFM


def _run(
    console: Console,
    example: Example,
    directory: Path,
    data: Path | None,
    rows_max: int,
    seed: int,
) -> None:
    if shift := prepare(directory, example.conf_dir):
        console.print(f"ports are taken; all are moved by {shift} in {directory / CLUSTER_FILE}")
    first_rows, second_rows = _rows_of_passes(console, directory, data, rows_max, seed)
    service = Service(directory)
    job = TrainingJob(console, example, service.training_output_dir, seed)
    try:
        with service:
            _serve_passes(console, service, job, first_rows, second_rows)
    except CubeError as error:
        raise DemoError(str(error)) from error


def _serve_passes(
    console: Console, service: Service, job: TrainingJob, first_rows: Rows, second_rows: Rows
) -> None:
    asked = first_rows.take(slice(0, _ROWS_ASKED_MAX))
    first = job.run_pass("1", first_rows)
    console.print(service.start(), highlight=False, markup=False)
    _wait_until_served(console, service, asked)
    console.print(
        f"pass 1 is served {time.monotonic() - first.announced_at_s:.1f} s after its donefile"
    )
    reference = unsplit_probabilities(first.unsplit_dir, asked)
    check_answers(console, service, asked, reference)
    _, held_out = first_rows.held_out()
    directly = {
        f"Paddle, {name} oneDNN": unsplit_probabilities(first.unsplit_dir, held_out, onednn=use)
        for name, use in (("with", True), ("without", False))
    }
    check_auc(console, service, held_out, directly)
    console.print("training pass 2 while requests go on over every protocol")
    tally, second = watch_takeover(
        service, asked, reference, lambda: job.run_pass("2", second_rows)
    )
    console.print(takeover_table(tally, second.announced_at_s))
    if problems := takeover_problems(tally):
        raise DemoError("\n".join(problems))


def _rows_of_passes(
    console: Console, directory: Path, data: Path | None, rows_max: int, seed: int
) -> tuple[Rows, Rows]:
    """Rows of both passes: a given file is trained twice, drawn rows are new ones each time."""
    with console.status("preparing rows"):
        if data is not None:
            rows = read_training_rows(data, rows_max)
            console.print(f"{data}: {len(rows)} rows (at most --rows={rows_max})", soft_wrap=True)
            return rows, rows
        path = directory / "rows.tsv"
        drawn = draw_rows(2 * rows_max, seed)
        write_rows(path, drawn)
        rows = read_training_rows(path)
        best = quality(drawn.labels, drawn.probabilities)
    console.print(
        f"{path}: {len(rows)} rows drawn, half for each pass;"
        f" the planted model itself has AUC {best.auc:.3f}, log loss {best.log_loss:.3f}",
        soft_wrap=True,
        highlight=False,
    )
    return rows.take(slice(0, rows_max)), rows.take(slice(rows_max, None))


def _wait_until_served(console: Console, service: Service, rows: Rows) -> None:
    """Asks until a row is answered.

    Raises:
        DemoError: not in time; with the last answer's error.
        ServiceError: a process ended meanwhile.
    """
    pause = threading.Event()
    deadline = time.monotonic() + _SERVED_TIMEOUT_S
    with console.status("cube-transfer pulls, builds, ships, loads and switches pass 1"):
        while True:
            try:
                ask(rows.take(slice(0, 1)), service.connector("baidu_std"))
                return
            except CubeError as error:
                if time.monotonic() > deadline:
                    raise DemoError(f"not served after {_SERVED_TIMEOUT_S:g} s: {error}") from error
            service.check_alive()
            pause.wait(_POLL_INTERVAL_S)


def check_answers(
    console: Console, service: Service, rows: Rows, reference: NDArray[np.float32]
) -> None:
    """Prints the service's answers beside Paddle's own; raises DemoError when they differ."""
    served = _ask_all(console, service, rows)
    console.print(comparison(reference, served))
    for name, difference in differences(reference, served).items():
        if not difference < TOLERANCE:
            raise DemoError(f"{name} differs from Paddle by {difference:.1e}, over {TOLERANCE}")


def check_auc(
    console: Console, service: Service, rows: Rows, directly: Mapping[str, NDArray[np.float32]]
) -> None:
    """Prints the AUC through the service beside that of Paddle's own answers; raises DemoError when
    it is none of them.

    Args:
        directly: those that Paddle gives, which differ in the last bits of the probabilities.
    """
    served = _ask_all(console, service, rows)
    console.print(auc_table(rows.labels, {**served, **directly}))
    expected = aucs(rows.labels, directly)
    for name, auc in aucs(rows.labels, served).items():
        if not min(abs(auc - each) for each in expected.values()) < AUC_TOLERANCE:
            told = ", ".join(f"{each:.7f}" for each in expected.values())
            raise DemoError(f"AUC over {name} is {auc:.7f}, that of Paddle {told}")


def _ask_all(console: Console, service: Service, rows: Rows) -> dict[str, NDArray[np.float32]]:
    """Probabilities float32[n, 2] of all rows over each protocol."""
    served: dict[str, NDArray[np.float32]] = {}
    with progress_bar(console) as bar:
        for protocol in PROTOCOLS:
            task = bar.add_task(f"asking over {protocol}", total=len(rows))
            served[protocol] = ask(
                rows, service.connector(protocol), functools.partial(bar.advance, task)
            )
    return served


def main() -> None:
    """Entry point."""
    command_line.run(app)


if __name__ == "__main__":
    main()
