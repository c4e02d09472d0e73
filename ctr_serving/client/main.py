"""Command line of `ctr-client`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from ctr_serving.client import CtrClient
from ctr_serving.criteo import read_batches
from cube_core.command_line import run

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def predict(
    data: Annotated[
        Path, typer.Option("--data", help="Criteo rows, tsv or csv, with or without labels")
    ],
    conf: Annotated[Path, typer.Option("--conf", help="predictors.prototxt")] = Path(
        "conf/predictors.prototxt"
    ),
    name: Annotated[
        str, typer.Option("--name", help="predictor of the file")
    ] = "ctr_prediction_service",
    address: Annotated[
        str, typer.Option("--address", help="host:port, instead of the file's servers")
    ] = "",
    protocol: Annotated[
        str | None, typer.Option("--protocol", help="baidu_std, grpc or http; the file's if absent")
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch_size", min=1, help="rows of one request")
    ] = 50,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="rows in all")] = None,
) -> None:
    """Predicts the rows of a file: `row prob0 prob1` on stdout, a summary of latency on stderr.

    Example: ctr-client --conf=conf/predictors.prototxt --data=rows.tsv --batch_size=50
    """
    if address:
        client = CtrClient(address, protocol or "baidu_std")
    else:
        client = CtrClient.from_conf(conf, name, protocol)
    row = 0
    latencies_ms: list[float] = []
    with client:
        for batch in read_batches(data, rows_per_batch=batch_size, rows_max=limit):
            start_s = time.perf_counter()
            probabilities = client.predict(batch.sparse_ids, batch.dense)
            latencies_ms.append((time.perf_counter() - start_s) * 1000)
            lines = [
                f"{row + index}\t{prob0:.7g}\t{prob1:.7g}\n"
                for index, (prob0, prob1) in enumerate(probabilities.tolist())
            ]
            sys.stdout.write("".join(lines))
            row += len(probabilities)
    sys.stdout.flush()
    print(_summary(row, latencies_ms), file=sys.stderr)


def _summary(rows: int, latencies_ms: list[float]) -> str:
    p50_ms, p99_ms = np.percentile(latencies_ms, [50, 99])
    return (
        f"{rows} rows in {len(latencies_ms)} requests: mean {np.mean(latencies_ms):.3f} ms,"
        f" p50 {p50_ms:.3f} ms, p99 {p99_ms:.3f} ms,"
        f" {rows / (sum(latencies_ms) / 1000):.0f} rows/s"
    )


def main() -> None:
    """Entry point of `ctr-client`."""
    run(app)


if __name__ == "__main__":
    main()
