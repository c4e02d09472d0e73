"""`cube-transfer` on a command line: what cannot work ends with 2 and one line that says why."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_core import command_line
from cube_transfer.main import app
from cube_transfer.state import State

CONF = """[default]
dict_name: ctr_embedding
mode: base_only
download_mode: http
wget_port: 8098
buildtool_local: ./cube-builder
donefile_address: {root}/donefile
output_address: {root}/output
tmp_address: {root}/tmp
shard_num: 1
copy_num: 1
transfer_address: 127.0.0.1

[cube_agent]
agent0_0: 127.0.0.1:8002
cube0_0: 127.0.0.1:8001:/deploy
"""


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """The command sends the log to the stderr of this test, which ends with it."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "transfer.conf"
    path.write_text(CONF.format(root=tmp_path))
    return path


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("dict_name: ctr_embedding\n", "", "[default] dict_name: "),
        ("wget_port: 8098", "wget_port: 70000", "[default] wget_port: "),
        ("shard_num: 1", "shard_num: 2", "[cube_agent] cube1_0: is missing"),
        ("127.0.0.1:8001:/deploy", "127.0.0.1:80010", "[cube_agent] cube0_0: "),
        ("mode: base_only", "mode: delta", "[default] mode: "),
        ("{root}/donefile", "afs://cluster/donefile", "[default] donefile_address: afs://"),
    ],
)
def test_a_conf_file_that_cannot_be_used(
    conf: Path, capsys: pytest.CaptureFixture[str], before: str, after: str, words: str
) -> None:
    text = CONF.replace(before, after).format(root=conf.parent)
    assert before not in text
    conf.write_text(text)
    error = _refusal(capsys, f"--config={conf}", "--port=0")
    assert error.splitlines()[-1].startswith("error: ")
    assert "transfer.conf" in error
    assert words in error


def test_a_conf_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert "error: /nowhere/transfer.conf: cannot be read" in _refusal(
        capsys, "-conf=/nowhere/transfer.conf"
    )


def test_flags_that_cannot_be_used(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--port" in _refusal(capsys, f"--config={conf}", "--port=70000")
    assert "--nonsense" in _refusal(capsys, f"--config={conf}", "--nonsense=1")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        error = _refusal(capsys, f"--config={conf}", f"--port={port}")
    assert f"--port: 127.0.0.1:{port}: Address already in use" in error


def test_a_state_directory_in_use(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = State(conf.parent / "tmp" / "state")
    error = _refusal(capsys, f"--conf={conf}", "--port=0")
    state.close()
    assert "is in use by another cube-transfer" in error


def test_help_has_an_example_and_nothing_heavy_is_imported() -> None:
    check = "import sys, cube_transfer.main; sys.exit('paddle' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    helped = subprocess.run(
        [sys.executable, "-m", "cube_transfer.main", "--help"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "cube-transfer --config=conf/transfer.conf" in helped.stdout


def test_a_builder_that_waits_has_imported_what_a_build_needs() -> None:
    check = (
        "import os, sys; from cube_transfer import builder_process; "
        "sys.argv = ['', str(os.getppid())]; builder_process.main(); "
        "sys.exit(not {'cube_builder.local_engine', 'numpy'} <= sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", check], stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0
