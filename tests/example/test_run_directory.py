"""The copy of conf/cluster.yml names ports that are free."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cube_cluster.cluster_file import read_cluster
from cube_core.errors import CubeError
from examples.criteo_ctr import run_directory
from examples.criteo_ctr.run_directory import CLUSTER_FILE, CONF_DIR, ports_of, prepare


def test_free_default_ports_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "taken_ports", lambda ports: [])
    assert prepare(tmp_path / "run") == 0
    cluster = read_cluster(tmp_path / "run" / CLUSTER_FILE)
    assert cluster == read_cluster(CONF_DIR / "cluster.yml").model_copy(update={"run_dir": "."})
    assert ports_of(tmp_path / "run" / CLUSTER_FILE) == [8001, 9001, 8002, 9002, 8098, 8010, 9010]


def test_a_taken_port_moves_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert run_directory.taken_ports([taken]) == [taken]
    monkeypatch.setattr(
        run_directory, "taken_ports", lambda ports: [port for port in ports if port == 8002]
    )
    assert prepare(tmp_path / "run") == 1000
    moved = [9001, 10001, 9002, 10002, 9098, 9010, 10010]
    assert ports_of(tmp_path / "run" / CLUSTER_FILE) == moved


def test_no_free_ports_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "taken_ports", lambda ports: [8001])
    with pytest.raises(CubeError, match=r"8001.*are taken"):
        prepare(tmp_path / "run")


def test_a_used_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.log").touch()
    with pytest.raises(CubeError, match="is not empty"):
        prepare(tmp_path)


def test_the_samples_in_conf_are_as_their_cluster_says() -> None:
    check = subprocess.run(
        [sys.executable, "-m", "cube_cluster.main", "config", "--check"],
        cwd=CONF_DIR.parent,
        env={**os.environ, "PYTHONPATH": str(CONF_DIR.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, f"run `cube config`: {check.stdout}{check.stderr}"
