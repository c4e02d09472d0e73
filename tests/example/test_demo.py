"""The demo as a user runs it: it shows what it must, and leaves nothing running behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.quant_auc import measure as measure_quants
from cube_cluster.identity import Identity, is_alive
from cube_cluster.processes_file import read_processes
from tests.waiting import wait_until

ROWS = 10_000
SEED = 7
REPOSITORY = Path(__file__).resolve().parents[2]
CRITEO_ROWS = REPOSITORY.parent / "shared" / "data" / "criteo" / "train.tiny.csv"
ROLES = ("cube_server_0", "cube_server_1", "cube_transfer_0", "ctr_serving_0")
DEEPFM_ROLES = (
    *(f"cube_server_{number}" for number in range(3)),
    "cube_transfer_0",
    "cube_transfer_1",
    "ctr_serving_0",
)


@contextlib.contextmanager
def running_demo(run_dir: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The demo in a process; its output goes to <run_dir>.out."""
    with run_dir.with_suffix(".out").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "examples.criteo_ctr.demo", f"--run_dir={run_dir}", *arguments],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "COLUMNS": "120",
                "PYTHONPATH": str(REPOSITORY),
                "PYTHONUNBUFFERED": "1",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def output_of(run_dir: Path) -> str:
    return run_dir.with_suffix(".out").read_text(encoding="utf-8")


def started_by(run_dir: Path) -> dict[str, Identity]:
    """The supervisor and its roles, by name."""
    record = read_processes(run_dir)
    assert record is not None
    roles = {name: role.identity for name, role in record.roles.items() if role.identity}
    return {"supervisor": record.supervisor, **roles}


def reach_stage(process: subprocess.Popen[bytes], run_dir: Path, stage: str) -> None:
    """Waits until the demo says that it is so far."""
    wait_until(lambda: stage in output_of(run_dir) or process.poll() is not None, 90.0, stage)
    assert process.poll() is None, output_of(run_dir)


@pytest.mark.demo
@pytest.mark.skipif(not CRITEO_ROWS.exists(), reason=f"{CRITEO_ROWS} is not there")
@pytest.mark.parametrize(("model", "roles"), [("criteo", ROLES), ("deepfm", DEEPFM_ROLES)])
def test_demo_on_real_criteo_rows(tmp_path: Path, model: str, roles: Sequence[str]) -> None:
    run_dir = tmp_path / "run"
    with running_demo(run_dir, f"--data={CRITEO_ROWS}", f"--model={model}") as process:
        exit_code = process.wait(170)
    output = output_of(run_dir)
    assert exit_code == 0, output
    assert re.search(r"of 1999 rows", output), output
    counts = {
        label: int(count)
        for label, count in re.findall(r"(answered with [\w ]+?|failed)\s+│\s+(\d+)", output)
    }
    assert counts["answered with pass 1"] > 0, output
    assert counts["answered with pass 2"] > 0, output
    assert counts["answered with anything else"] == counts["failed"] == 0, output
    aucs = dict(
        re.findall(r"(baidu_std|grpc|http|Paddle, with\w* oneDNN)\s+│\s+([\d.]+) │", output)
    )
    assert len(aucs) == 5, output
    assert aucs["baidu_std"] == aucs["grpc"] == aucs["http"]
    assert re.search(r"donefile to first answer of pass 2\s+│\s+\d+\.\d+ s", output), output
    assert str(run_dir) in output
    for role in roles:
        assert " ready: " in (run_dir / role / f"{role}.log").read_text(), role


@pytest.mark.demo
def test_demo_on_rows_of_its_own_and_what_quantizing_costs_there(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with running_demo(run_dir, f"--rows={ROWS}", f"--seed={SEED}") as process:
        exit_code = process.wait(170)
    output = output_of(run_dir)
    assert exit_code == 0, output
    as_served = [
        float(auc) for auc in re.findall(r"(?:baidu_std|grpc|http)\s+│\s+([\d.]+) │", output)
    ]
    directly = [
        float(auc) for auc in re.findall(r"Paddle, with\w* oneDNN\s+│\s+([\d.]+) │", output)
    ]
    assert (len(as_served), len(directly)) == (3, 2), output
    assert as_served == pytest.approx([directly[0]] * 3, abs=2e-6)
    figures = {each.quant: each for each in measure_quants(run_dir, ROWS, SEED)}
    assert figures["none"].max_error == 0
    assert figures["none"].auc > 0.55
    for quant in ("fp16", "int8"):
        assert figures[quant].mean_error > 0
        assert figures[quant].auc == pytest.approx(figures["none"].auc, abs=0.001)


@pytest.mark.demo
@pytest.mark.parametrize(
    ("signal_number", "stage"),
    [(signal.SIGINT, "cube_server_0"), (signal.SIGTERM, "requests go on")],
)
def test_an_interrupted_demo_stops_what_it_started(
    tmp_path: Path, signal_number: signal.Signals, stage: str
) -> None:
    run_dir = tmp_path / "run"
    with running_demo(run_dir, "--rows=2000") as process:
        reach_stage(process, run_dir, stage)
        started = started_by(run_dir)
        process.send_signal(signal_number)
        exit_code = process.wait(60)
    assert set(started) == {"supervisor", *ROLES}
    assert [name for name, identity in started.items() if is_alive(identity)] == []
    assert exit_code == 128 + signal_number, output_of(run_dir)
    assert str(run_dir) in output_of(run_dir)


@pytest.mark.demo
def test_a_process_that_dies_fails_the_demo(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with running_demo(run_dir, "--rows=2000") as process:
        reach_stage(process, run_dir, "requests go on")
        started = started_by(run_dir)
        os.kill(started["cube_transfer_0"].pid, signal.SIGKILL)
        exit_code = process.wait(60)
    assert exit_code == 1, output_of(run_dir)
    assert "failed: cube_transfer_0 ended by SIGKILL" in output_of(run_dir)
    assert [name for name, identity in started.items() if is_alive(identity)] == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [(None, "No such file"), ("1,2,3\n", "rows.csv:1: 3 fields"), ("", "has no rows")],
    ids=["no such file", "too few fields", "empty"],
)
def test_bad_rows_exit_with_2(tmp_path: Path, rows: str | None, message: str) -> None:
    path = tmp_path / "rows.csv"
    if rows is not None:
        path.write_text(rows)
    run_dir = tmp_path / "run"
    with running_demo(run_dir, f"--data={path}") as process:
        assert process.wait(60) == 2
    assert message in output_of(run_dir)
    assert "Traceback" not in output_of(run_dir)
