"""`cube config` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cube_cluster.deployment import Deployment
from cube_cluster.main import app
from cube_core import command_line

SAMPLE = Path(__file__).parents[2] / "conf" / "cluster.yml"
NAMES = {
    "cube.conf",
    "gflags.conf",
    "cube_server_0.flags",
    "cube_server_1.flags",
    "transfer.conf",
    "cube_transfer_0.flags",
    "model_toolkit.prototxt",
    "predictors.prototxt",
    "ctr_serving_0.flags",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "cluster.yml").write_text(SAMPLE.read_text())
    return tmp_path


def cube(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_every_file_is_written_beside_the_cluster_or_where_asked(folder: Path) -> None:
    assert cube("config") == 0
    assert {path.name for path in (folder / "conf").iterdir()} == NAMES | {"cluster.yml"}
    assert cube("config", "--output=other/conf", "-f", "conf/cluster.yml") == 0
    assert {path.name for path in (folder / "other" / "conf").iterdir()} == NAMES
    assert "--conf=other/conf/model_toolkit" in Path("other/conf/ctr_serving_0.flags").read_text()


def test_a_second_run_changes_nothing_and_check_says_what_a_change_would(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cube("config") == 0
    before = {path: path.stat().st_mtime_ns for path in (folder / "conf").iterdir()}
    assert cube("config") == cube("config", "--check") == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "conf").iterdir()} == before
    text = SAMPLE.read_text().replace("retry: 3", "retry: 5")
    (folder / "conf" / "cluster.yml").write_text(text)
    capsys.readouterr()
    assert cube("config", "--check") == 1
    assert capsys.readouterr().out == "conf/cube.conf: is not as conf/cluster.yml says\n"
    assert cube("config") == 0
    assert json.loads(Path("conf/cube.conf").read_text())[0]["retry"] == 5


@pytest.mark.parametrize("name", ["cube.conf", "transfer.conf", "gflags.conf"])
def test_a_file_written_by_hand_is_not_replaced_unless_forced(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = folder / "conf" / name
    own.write_text("# by hand\n")
    assert cube("config") == 2
    assert f"conf/{name}: was not written by `cube config`" in capsys.readouterr().err
    assert own.read_text() == "# by hand\n"
    assert {path.name for path in (folder / "conf").iterdir()} == {"cluster.yml", name}
    assert cube("config", "--force") == 0
    assert own.read_text() != "# by hand\n"


def test_a_wrong_file_is_one_line_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "conf" / "cluster.yml").write_text("dicts: 3\n")
    assert cube("config") == 2
    assert capsys.readouterr().err.startswith("error: conf/cluster.yml:1: dicts: ")


@pytest.mark.parametrize("command", ["", "config", "up", "status", "logs", "restart", "down"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cube(*command.split(), "--help") == 0
    assert "Example:" in capsys.readouterr().out


def test_only_roles_of_this_machine_are_run_here(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "conf" / "cluster.yml"
    hosts = "    hosts: [127.0.0.1, 192.0.2.1]\n    port: 8001"
    path.write_text(SAMPLE.read_text().replace("    port: 8001", hosts))
    assert [role.name for role in Deployment.read(path).local_roles()] == [
        "cube_server_0",
        "cube_transfer_0",
        "ctr_serving_0",
    ]
    path.write_text(f"host: 192.0.2.1\n{SAMPLE.read_text()}")
    assert cube("up") == 2
    assert "no role has a host that is this machine" in capsys.readouterr().err
