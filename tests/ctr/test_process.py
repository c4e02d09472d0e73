"""The predictor as a process: its command line, its configuration and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.ctr.models import publish, requests_of
from tests.ctr.service import Ctr, ctr_running, shards_running, write_conf
from tests.waiting import wait_until


def ctr_serving(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "ctr_serving.main",
            "--port=0",
            "--grpc_port=0",
            "--conf=model_toolkit.prototxt",
            "--cube_conf=cube.conf",
            *flags,
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


TOOLKIT = "model_toolkit.prototxt"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            replaced(TOOLKIT, 'reloadable_type: "timestamp_ne"', ""),
            f"{TOOLKIT}: engines[0].reloadable_type: is missing",
        ),
        (
            replaced(TOOLKIT, "timestamp_ne", "sha1sum"),
            f"{TOOLKIT}: engines[0].reloadable_type: 'sha1sum' is not supported",
        ),
        (
            replaced(TOOLKIT, '"ctr_embedding"', '"other"'),
            "engines[0].sparse_param_service_table_name: 'other' is no dict of cube.conf",
        ),
        (
            replaced(TOOLKIT, '"ctr_embedding"', '""'),
            "engines[0].sparse_param_service_table_name: is missing",
        ),
        (
            replaced(TOOLKIT, "runtime_thread_num: 1", "runtime_thread_num: 999"),
            "runtime_thread_num: must be from 0 to 256",
        ),
        (
            replaced(TOOLKIT, "runtime_thread_num: 1", "batch_wait_us: 300"),
            "batch_wait_us: needs enable_batch_align: 1",
        ),
        (replaced(TOOLKIT, 'model_data_path: "./model/current"', ""), "model_data_path"),
        (replaced(TOOLKIT, "engines {", "engine {"), f"{TOOLKIT}:"),
        (replaced("cube.conf", '"shard": 2', '"shard": 3'), "cube.conf: 0: nodes: 2 entries"),
        (lambda root: (root / "cube.conf").unlink(), "cube.conf: cannot be read"),
    ],
)
def test_a_bad_configuration_is_named_by_file_and_field(
    tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    write_conf(tmp_path, [8001, 8002])
    change(tmp_path)
    ended = ctr_serving(tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert message in ended.stderr


def test_a_port_that_is_taken_is_named(ctr: Ctr, tmp_path: Path) -> None:
    write_conf(tmp_path, [8001, 8002])
    ended = ctr_serving(tmp_path, f"--port={ctr.role.port()}")
    assert ended.returncode == 2
    assert f"--port: cannot listen on 127.0.0.1:{ctr.role.port()}" in ended.stderr


def test_flags_of_the_original_are_accepted(tmp_path: Path) -> None:
    write_conf(tmp_path, [8001, 8002])
    (tmp_path / "gflags.conf").write_text("--workflow_path=./conf\n--bthread_concurrency=16\n")
    flags = ["--flagfile=gflags.conf", "--inferservice_path=./conf", "--nosuch=1"]
    ended = ctr_serving(tmp_path, *flags)
    assert ended.returncode == 2
    assert "nosuch" in ended.stderr
    with ctr_running(tmp_path, *flags[:2]) as ctr:
        assert ctr.get("/live").text == "OK"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_predictor_without_a_model_ends_on_a_signal(
    tmp_path: Path, number: signal.Signals
) -> None:
    write_conf(tmp_path, [8001, 8002])
    with ctr_running(tmp_path) as ctr:
        # Paddle takes the process's signal handlers away when it is imported.
        wait_until(lambda: "paddle is imported" in ctr.role.log(), what="paddle")
        assert ctr.role.stop(number) == 0


def test_sigterm_answers_what_is_under_way(models: dict[int, Path], tmp_path: Path) -> None:
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports, timeout_ms=8000)
        publish(tmp_path / "model", models[1])
        with ctr_running(tmp_path) as ctr, ctr.client(retry_count=0) as client:
            wait_until(ctr.model_version, what="model 1 served")
            expected = client.predict(*requests_of(2))
            answers: list[NDArray[np.float32]] = []
            asking = threading.Thread(
                target=lambda: answers.append(client.predict(*requests_of(2)))
            )
            shard_pid = shards.roles[0].process.pid
            os.kill(shard_pid, signal.SIGSTOP)
            try:
                asking.start()
                wait_until(lambda: "requests_pending 1.0" in ctr.get("/metrics").text)
                ctr.role.process.send_signal(signal.SIGTERM)
                wait_until(lambda: "draining" in ctr.role.log(), what="the drain")
            finally:
                os.kill(shard_pid, signal.SIGCONT)
            asking.join()
            assert ctr.role.stop() == 0
    np.testing.assert_array_equal(answers, [expected])


def test_what_keeps_models_from_being_taken_is_told(tmp_path: Path) -> None:
    """And does not keep the process from ending in order."""
    write_conf(tmp_path, [1, 2], extra='model_url: "https://127.0.0.1:1/models"')
    with ctr_running(tmp_path, "--tls_ca_file=missing.pem") as ctr:
        wait_until(lambda: "missing.pem" in ctr.status()["problem"], 60, "what is wrong is told")
        assert ctr.role.stop(signal.SIGTERM) == 0
