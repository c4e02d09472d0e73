"""The steps of docs/operating/from-paddle-serving.md, done as they are written there."""

from __future__ import annotations

import contextlib
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest

from ctr_serving.client import CtrClient
from ctr_serving.predictor import import_paddle
from cube_api import CubeClient
from cube_core.conf.cube_conf import read_cube_conf
from docs_site.commands import programs
from tests.cluster.site import free_ports
from tests.ctr.models import make_model, publish, requests_of
from tests.ctr.models import write_manifest as write_model_manifest
from tests.ctr.service import Ctr, ctr_running, shards_running, write_conf
from tests.docs.command_lines import lines_of
from tests.docs.pages import page, section
from tests.paddle_serving.test_move import FILES, KEY_COUNT, value, write_original_version
from tests.processes import Role, running
from tests.transfer.passes import rows_of, write_embedding
from tests.waiting import wait_until

TIMEOUT_S = 60.0
OLD_PASS, NEW_PASS = "1594201012", "1594201312"
KEYS = np.arange(KEY_COUNT, dtype=np.uint64)
STEPS = section(page("operating/from-paddle-serving.md"), "Step by step, without a gap")


def commands_of(step: int) -> list[list[str]]:
    """The calls of our programs in a step, without where their output goes."""
    text = STEPS.partition(f"**{step}.")[2].partition(f"**{step + 1}.")[0]
    return [shlex.split(line) for line in lines_of(text)]


def run(command: list[str], cwd: Path) -> str:
    """Of a command that is to end by itself and well."""
    name, *arguments = command
    module = programs()[name]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def original(name: str, changes: Mapping[str, str]) -> str:
    """A file of the original with other texts in it."""
    text = (FILES / name).read_text()
    for before, after in changes.items():
        assert before in text
        text = text.replace(before, after)
    return text


def write_cube_conf(folder: Path, ports: list[int]) -> Path:
    """The original's, with the addresses of two servers of this machine."""
    path = folder / "cube.conf"
    folder.mkdir(exist_ok=True)
    first, second = (f"127.0.0.1:{port}" for port in ports)
    # Whoever reads it must never find half of it.
    text = original("cube.conf", {"127.0.0.1:8000": first, "127.0.0.1:8027": second})
    (folder / ".cube.conf").write_text(text)
    (folder / ".cube.conf").replace(path)
    return path


@contextlib.contextmanager
def servers(folder: Path, name: str, tables: Path) -> Iterator[list[Role]]:
    """Step 2: a server for each shard, with the tables in place and enabled. Also in the place of
    the old ones, whose answers are the same bytes (test_move)."""
    (command,) = commands_of(2)
    with contextlib.ExitStack() as stack:
        roles = []
        for shard in range(2):
            data = folder / name / f"data{shard}"
            shutil.copytree(tables, data / tables.name)
            own = {"--port": "0", "--data_dir": str(data), "--shard": str(shard)}
            own["--flagfile"] = str(FILES / "gflags_cube.conf")
            given = [each.partition("=") for each in command[1:]]
            flags = [f"{flag}={own.get(flag, text)}" for flag, _, text in given if flag != "--host"]
            role = stack.enter_context(
                running("cube_server.main", [*flags, "--grpc_port=-1"], cwd=folder)
            )
            enabled = {"cmd": "enable", "version": OLD_PASS}
            answer = httpx.post(
                f"http://127.0.0.1:{role.port()}/ControlService/cmd", content=json.dumps(enabled)
            )
            assert answer.status_code == 200, answer.text
            roles.append(role)
        yield roles


def ports_of(roles: list[Role]) -> list[int]:
    return [role.port() for role in roles]


def test_servers_the_daemon_and_clients_are_taken_over(tmp_path: Path) -> None:
    write_original_version(tmp_path / f"out/{OLD_PASS}_{OLD_PASS}", shard_num=2)
    for command in commands_of(1):
        run(command, tmp_path)
    tables = tmp_path / f"tables/{OLD_PASS}_{OLD_PASS}"
    with servers(tmp_path, "old", tables) as old, servers(tmp_path, "new", tables) as new:
        clients = write_cube_conf(tmp_path / "clients", ports_of(old))
        write_cube_conf(tmp_path / "old", ports_of(old))
        new_conf = write_cube_conf(tmp_path / "new", ports_of(new))
        compare(tmp_path)
        let_the_daemon_deploy(tmp_path, new)
        with CubeClient(new_conf) as cube:
            found = cube.seek("test_dict", KEYS, dim=10)
            np.testing.assert_array_equal(found.rows, rows_of(NEW_PASS, KEYS, 10))
        move_a_running_client(clients, ports_of(old), ports_of(new))


def compare(folder: Path) -> None:
    """Step 3."""
    (folder / "keys").write_text("".join(f"{key}\n" for key in KEYS))
    told = [
        [line for line in run(command, folder).splitlines() if line.startswith("key:")]
        for command in commands_of(3)
    ]
    old, new = told
    assert len(old) == KEY_COUNT
    assert old == new


def let_the_daemon_deploy(folder: Path, new: list[Role]) -> None:
    """Step 4: the original's transfer.conf, with the ports of the new servers and the directories
    of this machine."""
    passes, (wget_port,) = folder / "passes", free_ports(1)
    write_embedding(passes / NEW_PASS, NEW_PASS, key_count=KEY_COUNT, dim=10)
    (passes / "donefile").mkdir()
    lines = [{"id": each, "key": each, "input": f"../{each}"} for each in (OLD_PASS, NEW_PASS)]
    (passes / "donefile/base.txt").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    changes = {
        "http://127.0.0.1:8080/output/ctr_cube/donefile": str(passes / "donefile"),
        "/home/work/cube/output": str(folder / "output"),
        "/home/work/cube/tmp": str(folder / "tmp"),
        "wget_port: 8098": f"wget_port: {wget_port}",
        "cube0_0: 127.0.0.1:8000": f"cube0_0: 127.0.0.1:{new[0].port()}",
        "cube1_0: 127.0.0.1:8027": f"cube1_0: 127.0.0.1:{new[1].port()}",
    }
    (folder / "conf").mkdir()
    (folder / "conf/transfer.conf").write_text(original("transfer.conf", changes))
    ((_, *flags),) = commands_of(4)
    flags = [flag for flag in flags if not flag.startswith("--host")]
    with running("cube_transfer.main", flags, cwd=folder) as daemon:
        url = f"http://127.0.0.1:{daemon.port()}/status"
        wanted = f"{NEW_PASS}_{NEW_PASS}"
        wait_until(lambda: httpx.get(url).json()["serving"] == wanted, TIMEOUT_S, "the new pass")
        stages = {each["id"]: each["stage"] for each in httpx.get(url).json()["passes"]}
        assert stages[OLD_PASS] == "superseded", "the newest line is deployed"
        assert "buildtool_local is not used" in daemon.log()


def move_a_running_client(clients: Path, old: list[int], new: list[int]) -> None:
    """Step 5, of embeddings: what it reads is the old pass or the new one, and then only that."""
    expected = {
        "old": np.stack([np.frombuffer(value(int(key)), np.float32) for key in KEYS]),
        "new": rows_of(NEW_PASS, KEYS, 10),
    }
    with CubeClient(clients) as cube:

        def seen() -> str:
            rows = cube.seek("test_dict", KEYS, dim=10, timeout_ms=5000).rows
            return next(name for name, each in expected.items() if np.array_equal(rows, each))

        assert {seen() for _ in range(20)} == {"old"}
        write_cube_conf(clients.parent, new)
        wait_until(lambda: seen() == "new", TIMEOUT_S, "the change over")
        assert {seen() for _ in range(20)} == {"new"}
    assert [str(each[0]) for each in read_cube_conf(clients)["test_dict"].replicas()] == [
        f"127.0.0.1:{port}" for port in new
    ]
    assert not set(old) & set(new)


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ctr, Ctr]]:
    """One in the place of the old predictor, and the new one."""
    import_paddle()
    root = tmp_path_factory.mktemp("predictors")
    make_model(root / "dense", 1)
    write_model_manifest(root / "dense", "1_1")
    with shards_running(root, "1_1", 1) as shards:
        write_conf(root, shards.ports)
        publish(root / "model", root / "dense")
        with ctr_running(root) as old, ctr_running(root) as new:
            for each in (old, new):
                wait_until(lambda: each.model_version() == "1_1", TIMEOUT_S, "a model")  # noqa: B023
            yield old, new


@pytest.mark.parametrize(("weights", "least", "most"), [("90|10", 5, 70), ("0|100", 300, 300)])
def test_the_weight_of_predictors_is_moved_over(
    predictors: tuple[Ctr, Ctr], tmp_path: Path, weights: str, least: int, most: int
) -> None:
    """Step 5, of predictions: 300 requests by the original's predictors.prototxt."""
    old, new = predictors
    changes = {"127.0.0.1:8010": old.address, '"50|50"': f'"{weights}"'}
    changes["127.0.0.1:8011,127.0.0.1:8012"] = new.address
    (tmp_path / "predictors.prototxt").write_text(original("predictors.prototxt", changes))

    def answered() -> list[int]:
        return [sum(each.status()["requests"].values()) for each in (old, new)]

    before = answered()
    with CtrClient.from_conf(tmp_path / "predictors.prototxt") as client:
        for seed in range(300):
            assert client.predict(*requests_of(1, seed)).shape == (1, 2)
    by_old, by_new = (now - then for now, then in zip(answered(), before, strict=True))
    assert by_old + by_new == 300
    assert least <= by_new <= most
