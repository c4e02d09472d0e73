"""Command line of `ctr-client`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from ctr_serving.client import Answer, CtrClient
from ctr_serving.client._load import ask_all
from ctr_serving.client._report import report
from ctr_serving.criteo import read_batches
from cube_core.command_line import TlsKeyFile, run
from cube_core.errors import ConfError
from cube_core.tls import ClientTls, TlsFiles

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
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, help="threads; each asks for all rows")
    ] = 1,
    repeat: Annotated[
        int, typer.Option("--repeat", min=1, help="how often each thread asks for all rows")
    ] = 1,
    enable_profiling: Annotated[
        bool,
        typer.Option("--enable_profiling/--noenable_profiling", help="the report, no predictions"),
    ] = False,
    variant: Annotated[
        str | None,
        typer.Option("--variant", help="tag of the variant to ask; by weight if absent"),
    ] = None,
    tls_ca_file: Annotated[
        str,
        typer.Option(
            "--tls_ca_file",
            help="who signs the servers' certificates: speak TLS, not as the file says",
        ),
    ] = "",
    tls_cert_file: Annotated[
        str, typer.Option("--tls_cert_file", help="certificate to show to servers that ask")
    ] = "",
    tls_key_file: TlsKeyFile = "",
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="rows of the file")] = None,
) -> None:
    """Predicts the rows of a file: `row prob0 prob1` on stdout, a report of latency on stderr.

    Example: ctr-client --conf=conf/predictors.prototxt --data=rows.tsv --batch_size=50
    """
    files = TlsFiles(tls_cert_file, tls_key_file, tls_ca_file)
    tls = ClientTls(files) if files != TlsFiles() else None
    if address:
        client = CtrClient(address, protocol or "baidu_std", tls=tls)
    else:
        client = CtrClient.from_conf(conf, name, protocol, tls)
    printed = 0

    def show(answer: Answer) -> None:
        nonlocal printed
        if not enable_profiling:
            sys.stdout.write(_lines(printed, answer.probabilities))
            printed += len(answer.probabilities)

    with client:
        tally = ask_all(
            client,
            read_batches(data, rows_per_batch=batch_size, rows_max=limit),
            concurrency=concurrency,
            repeat=repeat,
            variant=_checked(client, variant),
            on_answer=show,
        )
    sys.stdout.flush()
    lines = report(
        tally,
        batch_size=batch_size,
        concurrency=concurrency,
        repeat=repeat,
        profiling=enable_profiling,
    )
    print("\n".join(lines), file=sys.stderr)


def _checked(client: CtrClient, variant: str | None) -> str | None:
    if variant is not None and variant not in client.variants:
        raise ConfError(
            "command line", "--variant", f"{variant!r} is none of {', '.join(client.variants)}"
        )
    return variant


def _lines(first_row: int, probabilities: NDArray[np.float32]) -> str:
    return "".join(
        f"{first_row + index}\t{prob0:.7g}\t{prob1:.7g}\n"
        for index, (prob0, prob1) in enumerate(probabilities.tolist())
    )


def main() -> None:
    """Entry point of `ctr-client`."""
    run(app)


if __name__ == "__main__":
    main()
