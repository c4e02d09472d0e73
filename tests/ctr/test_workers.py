"""Several predictor processes on one port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ctr_serving.client import CubeError
from ctr_serving.plane import joined_metrics, joined_status
from tests.ctr.models import direct_probabilities, embedding, publish, requests_of
from tests.ctr.service import Ctr, Shards, ctr_running, write_conf
from tests.waiting import wait_until

WORKERS = 2
START_TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def workers(
    two_versions: Shards, models: dict[int, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Ctr]:
    """Two processes that serve model 1."""
    root = tmp_path_factory.mktemp("workers")
    write_conf(root, two_versions.ports, extra="enable_batch_align: 1 cube_cache_mb: 1")
    publish(root / "model", models[1])
    with ctr_running(root, f"--workers={WORKERS}") as ctr:
        wait_until(lambda: ready(ctr), START_TIMEOUT_S, "a model in every worker")
        yield ctr


def ready(ctr: Ctr) -> bool:
    return ctr.get("/ready").status_code == 200


def worker_pids(ctr: Ctr) -> list[int]:
    return [int(each["pid"]) for each in ctr.status()["workers"]]


def ask_every_worker(ctr: Ctr, model: Path, seed: int, protocol: str = "baidu_std") -> None:
    """Asks over new connections until every worker has answered, and checks each answer."""
    ids, dense = requests_of(3, missing=True)
    expected = direct_probabilities(model, embedding(ids, seed), dense)
    before = {each["pid"]: each["rows"] for each in ctr.status()["workers"]}

    def has_asked_all() -> bool:
        with ctr.client(protocol) as client:
            np.testing.assert_allclose(client.predict(ids, dense), expected, atol=1e-5, rtol=0)
        now = {each["pid"]: each["rows"] for each in ctr.status()["workers"]}
        return all(now[pid] > rows for pid, rows in before.items())

    wait_until(has_asked_all, START_TIMEOUT_S, "an answer of every worker")


@pytest.mark.parametrize("protocol", ["baidu_std", "http", "grpc"])
def test_every_worker_answers_on_the_same_port(
    workers: Ctr, models: dict[int, Path], protocol: str
) -> None:
    assert f"workers={WORKERS}" in workers.role.ready_line
    ask_every_worker(workers, models[1], 1, protocol)


def test_status_and_metrics_are_of_all_workers(workers: Ctr, models: dict[int, Path]) -> None:
    ask_every_worker(workers, models[1], 1)
    status = workers.status()
    assert len(status["workers"]) == WORKERS
    assert status["rows"] == sum(each["rows"] for each in status["workers"])
    assert status["requests"]["ok"] == sum(each["requests"]["ok"] for each in status["workers"])
    for name in ("switches", "refusals"):
        assert status[name] == sum(each[name] for each in status["workers"])
    assert status["switches"] >= WORKERS
    for name in ("keys", "hits", "misses", "capacity_keys"):
        assert status["cache"][name] == sum(each["cache"][name] for each in status["workers"])
    assert status["engines"][0]["cache"] == status["cache"]
    samples = samples_of(workers.get("/metrics").text)
    assert samples["ctr_model_switches_total", ()] == status["switches"]
    assert samples["ctr_rows_total", ()] == status["rows"]
    assert samples["ctr_requests_total", (("outcome", "ok"),)] == status["requests"]["ok"]
    labels = ("dict", "ctr_embedding"), ("engine", "ctr_prediction"), ("version", "1_1")
    assert samples["ctr_model", labels] == WORKERS
    assert ("ctr_worker_restarts_total", ()) in samples


def test_every_worker_takes_a_new_model(
    workers: Ctr, models: dict[int, Path], two_versions: Shards
) -> None:
    deploy_dir = Path(f"/proc/{workers.role.process.pid}/cwd").resolve() / "model"
    for seed in (2, 1):
        publish(deploy_dir, models[seed])
        version = f"{seed}_{seed}"
        wait_until(
            lambda version=version: all(  # type: ignore[misc]
                each["model"]["version"] == version for each in workers.status()["workers"]
            ),
            START_TIMEOUT_S,
            f"{version} in every worker",
        )
        ask_every_worker(workers, models[seed], seed)


def test_a_worker_that_ends_is_started_again(workers: Ctr, models: dict[int, Path]) -> None:
    pids = worker_pids(workers)
    os.kill(pids[0], signal.SIGKILL)

    def is_whole_again() -> bool:
        # A connection to the worker that has just ended is lost.
        try:
            now = worker_pids(workers)
            return len(now) == WORKERS and pids[0] not in now and ready(workers)
        except httpx.HTTPError:
            return False

    wait_until(is_whole_again, START_TIMEOUT_S, "another worker")
    assert workers.status()["worker_restarts"] >= 1
    ask_every_worker(workers, models[1], 1)


def test_all_end_together(two_versions: Shards, models: dict[int, Path], tmp_path: Path) -> None:
    write_conf(tmp_path, two_versions.ports)
    publish(tmp_path / "model", models[1])
    with ctr_running(tmp_path, f"--workers={WORKERS}") as ctr:
        wait_until(lambda: ready(ctr), START_TIMEOUT_S, "a model in every worker")
        pids = worker_pids(ctr)
        assert ctr.role.stop(signal.SIGTERM) == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="no worker")
    with pytest.raises(CubeError), ctr.client() as client:
        client.predict(*requests_of(1))


def test_a_port_in_use_is_told_before_any_worker_starts(workers: Ctr, tmp_path: Path) -> None:
    write_conf(tmp_path, [1, 2])
    command = [sys.executable, "-m", "ctr_serving.main", f"--port={workers.role.port()}"]
    files = ["--conf=model_toolkit.prototxt", "--cube_conf=cube.conf", "--workers=2"]
    done = subprocess.run([*command, *files], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--port" in done.stderr.splitlines()[-1]


# ------------------------------------------------------------------------------ sums


def samples_of(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_samples_of_the_same_name_and_labels_are_added() -> None:
    first = (
        "# HELP a_total What\n# TYPE a_total counter\n"
        'a_total{slot="0"} 1.0\na_total{slot="1"} 2.0\n'
        '# TYPE h histogram\nh_bucket{le="1.0"} 1.0\nh_bucket{le="+Inf"} 3.0\nh_sum 9.5\n'
        "h_count 3.0\n"
    )
    second = '# TYPE a_total counter\na_total{slot="1"} 5.0\n# TYPE g gauge\ng 4.0\n'
    samples = samples_of(joined_metrics([first, second, first]).decode())
    assert samples["a_total", (("slot", "0"),)] == 2
    assert samples["a_total", (("slot", "1"),)] == 9
    assert samples["h_bucket", (("le", "+Inf"),)] == 6
    assert samples["h_sum", ()] == 19
    assert samples["g", ()] == 4


def test_the_status_of_all_tells_of_a_worker_with_a_problem() -> None:
    def engine(problem: str, hits: int | None) -> dict[str, Any]:
        cache = hits and {
            "keys": 5,
            "capacity_keys": 70,
            "capacity_bytes": 4000,
            "hits": hits,
            "misses": 1,
            "hit_rate": 0.5,
            "problem": "",
        }
        return {
            "problem": problem,
            "source_problem": "",
            "switches": 2,
            "refusals": 1,
            "cache": cache,
        }

    def status(pid: int, problem: str, by_slot: list[int]) -> dict[str, Any]:
        engines = [engine(problem, pid), engine("" if problem else "no model", None)]
        return {
            **engines[0],
            "engines": engines,
            "pid": pid,
            "requests": Counter(ok=pid),
            "requests_pending": 1,
            "rows": pid,
            "missing_keys": sum(by_slot),
            "missing_keys_by_slot": by_slot,
            "failed_keys": 0,
            "failed_keys_by_slot": [],
            "stage_seconds": {"seek": {"0.5": pid, "+Inf": 0, "sum": 0.25}},
        }

    joined = joined_status([status(3, "", [1, 2]), status(4, "bad model", [1, 1, 5])], 2)
    assert joined["problem"] == "bad model"
    assert joined["pid"] == 2
    assert joined["requests"] == {"ok": 7}
    assert joined["missing_keys_by_slot"] == [2, 3, 5]
    assert joined["stage_seconds"] == {"seek": {"0.5": 7, "+Inf": 0, "sum": 0.5}}
    assert [each["pid"] for each in joined["workers"]] == [3, 4]
    assert (joined["switches"], joined["refusals"]) == (4, 2)
    assert joined["cache"] == {
        "keys": 10,
        "capacity_keys": 140,
        "capacity_bytes": 8000,
        "hits": 7,
        "misses": 2,
        "hit_rate": 0.7778,
        "problem": "",
    }
    assert joined["engines"][0] == {name: joined[name] for name in joined["engines"][0]}
    assert joined["engines"][1] == {
        "problem": "no model",
        "source_problem": "",
        "switches": 4,
        "refusals": 2,
        "cache": None,
    }
