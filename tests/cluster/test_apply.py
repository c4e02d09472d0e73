"""`cube apply` and `cube restart` bring what runs to what cluster.yml says by now, and no seek
fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cube_api import CubeClient, CubeError
from cube_core.conf.cube_conf import read_cube_conf
from tests.cluster.load import Load
from tests.cluster.site import TIMEOUT_S, Site, free_ports, states
from tests.server.tables import make_table
from tests.transfer.passes import DICT_NAME, Trainer
from tests.transfer.test_reshard import Reader
from tests.waiting import wait_until

# Each runs a dozen commands, and real roles between them.
pytestmark = pytest.mark.timeout(300)


class Replicated(Site):
    """One shard of the dict `d`, served by two servers that have a table."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, server_count=2)
        self.write({})
        for number in range(2):
            data_dir = folder / "data" / f"cube_server_{number}"
            make_table(data_dir / "10_10" / "d_part0.table", 10, dict_name="d")
            (data_dir / "VERSION").write_text("10_10")

    def write(self, changes: dict[str, object], **of_the_dict: object) -> None:
        conf = {
            "name": "d",
            "donefile_address": "passes/donefile",
            "shards": 1,
            "replicas": 2,
            "timeout_ms": 20_000,
            "servers": [{"port": port, "grpc_port": -1} for port in self.server_ports],
            "transfer": {"port": self.transfer_port},
            **of_the_dict,
        }
        super().write({"dicts": [conf], **changes})

    @property
    def cube_conf(self) -> Path:
        return self.run_dir / "conf" / "cube.conf"

    def started(self) -> dict[str, int]:
        """The process of each role."""
        return {name: self.identity(name).pid for name in self.record().roles}


@pytest.fixture
def replicated(tmp_path: Path) -> Iterator[Replicated]:
    site = Replicated(tmp_path)
    started = site.cube("up", "--detach")
    assert started.returncode == 0, started.stderr
    yield site
    site.clean()


def require_limit(site: Replicated, keys_max: int) -> None:
    """Both servers take no seek of more keys."""
    with CubeClient(site.cube_conf) as cube:
        keys = np.arange(keys_max + 1, dtype=np.uint64)
        cube.seek("d", keys[:keys_max])
        with pytest.raises(CubeError, match="keys_per_request_max"):
            cube.seek("d", keys, timeout_ms=2000)


REFUSED: list[tuple[str, dict[str, object], dict[str, Any]]] = [
    ("cube_server_0: data_dir is data/cube_server_0 and cannot", {"data_dir": "elsewhere"}, {}),
    ("cube_server_1: shard is 0 and cannot become 1", {}, {"shards": 2, "replicas": 1}),
    ("cube_transfer_0: port is ", {}, {"transfer": {"port": 1}}),
    ("cube_server_0: TLS is off and cannot", {"security": {"tls_cert_file": "cluster.yml"}}, {}),
]


@pytest.mark.parametrize("command", [("restart", "cube_server"), ("apply",)])
def test_a_changed_limit_is_taken_without_a_failed_seek(
    replicated: Replicated, command: tuple[str, ...]
) -> None:
    site, before = replicated, replicated.started()
    with Load(site.cube_conf).running() as load:
        load.wait_for_more()
        site.write({"limits": {"cube_server": {"keys_per_request_max": 150}}})
        done = site.cube(*command)
        assert done.returncode == 0, done.stderr
        load.wait_for_more()
    assert load.failures == []
    after = site.started()
    assert {name for name in before if before[name] != after[name]} == {
        "cube_server_0",
        "cube_server_1",
    }, "the daemon reads none of the files that have changed"
    require_limit(site, 150)
    assert "keys_per_request_max=150" in (site.run_dir / "conf" / "gflags.conf").read_text()
    assert site.cube("apply").stdout == "everything is as the file says\n"
    assert site.started() == after


def test_an_apply_goes_on_where_another_was_cut_short(replicated: Replicated) -> None:
    """One server runs with the new files already; clients need no restart at all."""
    site, before = replicated, replicated.started()
    site.write({}, timeout_ms=7777)
    assert site.cube("apply").returncode == 0
    assert read_cube_conf(site.cube_conf)["d"].timeout_ms == 7777
    assert site.started() == before
    site.write({"limits": {"cube_server": {"keys_per_request_max": 150}}})
    assert site.cube("restart", "cube_server_1").returncode == 0
    before = site.started()
    assert site.cube("apply").stdout.splitlines() == [
        "cube_server_0 is ready again, with what has changed"
    ]
    assert {n for n, pid in site.started().items() if before[n] != pid} == {"cube_server_0"}


def test_what_cannot_change_while_it_runs_is_refused_by_name(replicated: Replicated) -> None:
    site, before = replicated, replicated.started()
    files = {path: path.read_bytes() for path in (site.run_dir / "conf").iterdir()}
    for told, changes, of_the_dict in REFUSED:
        site.write(changes, **of_the_dict)
        refused = site.cube("apply")
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr
    assert told in site.cube("restart", "cube_server_0").stderr
    assert {path: path.read_bytes() for path in (site.run_dir / "conf").iterdir()} == files
    assert site.started() == before


def test_a_further_replica_is_started_and_one_that_is_out_of_the_file_ended(
    replicated: Replicated,
) -> None:
    """Clients are told of the new one when it serves; nothing restarts but the daemon."""
    site, before = replicated, replicated.started()
    (port,) = free_ports(1)
    two = [{"port": each, "grpc_port": -1} for each in site.server_ports]
    site.write({}, replicas=3, servers=[*two, {"port": port, "grpc_port": -1}])
    refused = site.cube("restart", "cube_server")
    assert "cube_server_2 came to the cluster since `cube up`; `cube apply`" in refused.stderr
    applied = site.cube("apply")
    assert applied.returncode == 0, applied.stderr
    assert applied.stdout.splitlines() == [
        "run/conf/cube.conf: d keeps the servers it has until all of the new ones serve; the "
        "daemon changes it then, or another `cube apply`",
        "cube_server_2 is ready",
        "cube_transfer_0 is ready again, with what has changed",
    ]
    assert read_cube_conf(site.cube_conf)["d"].dup == 2
    make_table(site.folder / "data/cube_server_2/10_10/d_part0.table", 10, dict_name="d")
    (site.folder / "data/cube_server_2/VERSION").write_text("10_10")
    assert site.cube("restart", "cube_server_2").returncode == 0
    wait_until(lambda: states(site.cube("status").stdout)["cube_server_2"] == "ok", TIMEOUT_S)
    assert site.cube("apply").returncode == 0
    assert read_cube_conf(site.cube_conf)["d"].dup == 3

    site.write({})
    told = "cube_server_2 is not in cluster.yml any more; `cube apply --end` ends it"
    assert told in site.cube("apply").stdout
    assert told.partition(" ")[2] in states(site.cube("status").stdout)["cube_server_2"]
    assert read_cube_conf(site.cube_conf)["d"].dup == 2
    pid = site.started()["cube_server_2"]
    assert site.cube("apply", "--end").stdout == "cube_server_2 is ended\n"
    assert not Path(f"/proc/{pid}").exists()
    assert {n for n, pid in site.started().items() if before[n] != pid} == {"cube_transfer_0"}

    site.write({}, replicas=3, servers=[*two, {"port": port, "grpc_port": -1}])
    refused = site.cube("apply")
    assert "cube_server_2: data/cube_server_2 holds what another server kept" in refused.stderr


def test_servers_that_clients_are_sent_to_are_not_ended(replicated: Replicated) -> None:
    """Others are to take their place, and have nothing to serve yet."""
    site, before = replicated, replicated.started()
    others = [{"port": port, "grpc_port": -1} for port in free_ports(2)]
    site.write({}, servers=others, first_server=2)
    with Load(site.cube_conf).running() as load:
        load.wait_for_more()
        refused = site.cube("apply", "--end")
        load.wait_for_more()
    assert load.failures == []
    assert refused.returncode == 2
    told = "cube_server_0: run/conf/cube.conf still sends clients there, since not all of the new"
    assert told in refused.stderr
    assert site.started().items() >= {(n, before[n]) for n in ("cube_server_0", "cube_server_1")}
    ports = [each.port for each in read_cube_conf(site.cube_conf)["d"].replicas()[0]]
    assert ports == site.server_ports


def test_nothing_is_applied_where_nothing_is_up(site: Site) -> None:
    refused = site.cube("apply")
    assert refused.returncode == 2
    assert "nothing is up; start it with `cube up`" in refused.stderr
    assert not (site.run_dir / "conf").exists()


class Resharded(Site):
    """A dict of passes in two shards, to be cut into three."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, server_count=2)
        self.trainer = Trainer(folder / "passes")
        self.old = {"shards": 2, "servers": self._places(self.server_ports)}
        self.new = {"shards": 3, "first_server": 2, "servers": self._places(free_ports(3))}
        self.cube_conf = self.run_dir / "conf" / "cube.conf"
        self.write_dict(self.old)

    @staticmethod
    def _places(ports: list[int]) -> list[dict[str, int]]:
        return [{"port": port, "grpc_port": -1} for port in ports]

    def write_dict(self, servers: dict[str, Any], **more: object) -> None:
        conf = {
            "name": DICT_NAME,
            "donefile_address": "passes/donefile",
            "transfer": {"port": self.transfer_port, "poll_interval_ms": 100},
            **servers,
            **more,
        }
        self.write({"dicts": [conf]})

    def shards_of_clients(self) -> int:
        return read_cube_conf(self.cube_conf)[DICT_NAME].shard

    def status(self) -> dict[str, dict[str, Any]]:
        found = json.loads(self.cube("status", "--json").stdout)
        return {each["name"]: each for each in found}

    def await_served(self, version: str, *servers: str) -> None:
        wait_until(
            lambda: {self.status()[name]["version"] for name in servers} == {version}, TIMEOUT_S
        )


def test_two_shards_become_three_without_a_failed_seek(tmp_path: Path) -> None:
    site = Resharded(tmp_path)
    try:
        _reshard(site)
    finally:
        site.clean()


def _reshard(site: Resharded) -> None:
    site.trainer.announce(site.trainer.write("1"))
    started = site.cube("up", "--detach")
    assert started.returncode == 0, started.stderr
    site.await_served("1_1", "cube_server_0", "cube_server_1", "cube_transfer_0")
    with Reader(site.cube_conf) as reader:
        reader.pin = "1_1"
        reader.more()
        site.write_dict(site.new, retiring=site.old)
        applied = site.cube("apply")
        assert applied.returncode == 0, applied.stderr
        assert applied.stdout.splitlines()[1:] == [
            "cube_server_2 is ready",
            "cube_server_3 is ready",
            "cube_server_4 is ready",
            "cube_transfer_0 is ready again, with what has changed",
        ]
        wait_until(lambda: site.shards_of_clients() == 3, TIMEOUT_S, "the daemon's switch")
        reader.more(100)
        status = site.status()
        assert [status[f"cube_server_{n}"]["problem"] for n in range(5)] == [""] * 5
        assert status["cube_server_1"]["what"] == f"{DICT_NAME} shard 1, retiring"
        assert status["cube_server_1"]["requests_per_s"] < 10, "only what status itself asks"
        # What runs is what the file says: neither command takes the clients back.
        assert site.cube("apply").stdout == "everything is as the file says\n"
        assert site.shards_of_clients() == 3

        site.write_dict(site.new)
        ended = site.cube("apply", "--end")
        assert ended.stdout.splitlines() == ["cube_server_0 is ended", "cube_server_1 is ended"]
        reader.pin = None
        site.trainer.announce(site.trainer.write("2"))
        wait_until(lambda: "2_2" in reader.versions, TIMEOUT_S, "the next pass")
        reader.more()
    assert reader.failures == []
    assert site.cube("down").returncode == 0
    assert site.cube("up", "--detach").returncode == 0
    names = ("cube_server_2", "cube_server_3", "cube_server_4", "cube_transfer_0")
    site.await_served("2_2", *names)
    assert set(site.status()) == set(names)
