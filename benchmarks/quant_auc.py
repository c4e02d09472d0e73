"""What --quant costs in AUC, on the passes of the Criteo example.

    python -m benchmarks.quant_auc --run_dir=run/demo-20261120-140503

The rows are those that the example drew for its second pass and held out from training, so the
run must have had the example's own rows; each table is read back as a server serves it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from cube_builder import BuildJob, build
from cube_builder.quantize import QUANTS, Quant
from cube_core._native import Table
from cube_core.command_line import run
from cube_core.versions import Version
from examples.criteo_ctr.features import Rows, read_training_rows
from examples.criteo_ctr.generator import draw_rows, write_rows
from examples.criteo_ctr.models import InferenceModel
from examples.criteo_ctr.quality import quality

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False)


@app.command()
def main(
    run_dir: Annotated[Path, typer.Option("--run_dir", help="Run directory of the example.")],
    rows_max: Annotated[int, typer.Option("--rows", help="Rows of a pass of that run.")] = 30_000,
    seed: Annotated[int, typer.Option("--seed", help="Seed of that run.")] = 7,
) -> None:
    """Prints the AUC with float32, fp16 and int8 tables.

    Example: python -m benchmarks.quant_auc --run_dir=run/demo-20261120-140503
    """
    for each in measure(run_dir, rows_max, seed):
        console.print(
            f"{each.quant}: AUC {each.auc:.6f} on {each.rows} rows;"
            f" elements off by {each.max_error:.3g} at most, {each.mean_error:.3g} in the mean"
        )


@dataclass(frozen=True)
class QuantFigures:
    """What one `--quant` makes of the held-out rows; the errors are of elements."""

    quant: Quant
    auc: float
    rows: int
    max_error: float
    mean_error: float


def measure(run_dir: Path, rows_max: int, seed: int) -> list[QuantFigures]:
    """Builds the embedding of a run's second pass with each `--quant`, and answers its held-out
    rows by Paddle with each table.

    Args:
        rows_max, seed: those of the run.
    """
    trained = run_dir / "train_output/2"
    manifest = json.loads((trained / "dense/manifest.json").read_bytes())
    inputs: list[str] = manifest["sparse_inputs"]
    model = InferenceModel(trained / "dense", [*inputs, manifest["dense_input"]])
    figures = []
    with tempfile.TemporaryDirectory(prefix="cube-quant-") as directory:
        rows = _held_out_rows(Path(directory), rows_max, seed)
        for quant in QUANTS:
            embedded, max_error, mean_error = _served(
                trained / "embedding", Path(directory) / quant, quant, rows.sparse_ids
            )
            feeds = {name: embedded[:, slot] for slot, name in enumerate(inputs)}
            scores = model.run({**feeds, manifest["dense_input"]: rows.dense})[:, 1]
            auc = quality(rows.labels, scores).auc
            figures.append(QuantFigures(quant, auc, len(rows), max_error, mean_error))
    return figures


def _held_out_rows(directory: Path, rows_max: int, seed: int) -> Rows:
    path = directory / "rows.tsv"
    write_rows(path, draw_rows(2 * rows_max, seed))
    _, held_out = read_training_rows(path).take(slice(rows_max, None)).held_out()
    return held_out


def _served(
    embedding: Path, output: Path, quant: Quant, ids: NDArray[np.int64]
) -> tuple[NDArray[np.float32], float, float]:
    """Rows float32[n, slots, dim] of ids int64[n, slots], and the errors of the build."""
    job = BuildJob("auc", embedding, output, 1, Version("1", "1"), quant=quant)
    report = build(job)
    table = Table.open(str(job.directory / job.table_name(0)))
    values, _ = table.get(np.ascontiguousarray(ids.reshape(-1)).view(np.uint64))
    rows = values.view("<f4").reshape(*ids.shape, -1)
    return rows, report.quant_max_error, report.quant_mean_error


if __name__ == "__main__":
    run(app)
