"""The copies of conf/ name ports that are free."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from cube_core.conf.transfer_conf import read_transfer_conf
from cube_core.errors import CubeError
from examples.criteo_ctr import run_directory
from examples.criteo_ctr.run_directory import CONF_DIR, DEFAULT_PORTS, Ports, prepare


def test_free_default_ports_leave_the_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_directory, "taken_ports", lambda ports: [])
    assert prepare(tmp_path / "run") == DEFAULT_PORTS
    for path in CONF_DIR.iterdir():
        assert (tmp_path / "run" / "conf" / path.name).read_bytes() == path.read_bytes()


def test_a_taken_port_moves_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        taken = listener.getsockname()[1]
        assert run_directory.taken_ports([taken]) == [taken]
    monkeypatch.setattr(
        run_directory, "taken_ports", lambda ports: [port for port in ports if port == 8002]
    )
    ports = prepare(tmp_path / "run")
    assert ports == Ports((9001, 9002), (10001, 10002), (9098,), 9010, 10010)
    conf_dir = tmp_path / "run" / "conf"
    transfer = read_transfer_conf(conf_dir / "transfer.conf")
    assert [replica.endpoint.port for replica in transfer.replicas] == [9001, 9002]
    assert transfer.wget_port == 9098
    cube = json.loads((conf_dir / "cube.conf").read_text())
    assert [node["ipport_list"] for node in cube[0]["nodes"]] == [
        "list://127.0.0.1:9001",
        "list://127.0.0.1:9002",
    ]
    assert cube[0]["timeout"] == 200
    assert "list://127.0.0.1:9010" in (conf_dir / "predictors.prototxt").read_text()


def test_no_free_ports_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory, "taken_ports", lambda ports: [8001])
    with pytest.raises(CubeError, match=r"8001.*are taken"):
        prepare(tmp_path / "run")


def test_a_used_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.log").touch()
    with pytest.raises(CubeError, match="is not empty"):
        prepare(tmp_path)
