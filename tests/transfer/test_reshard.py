"""Another number of shards, while clients go on reading."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from cube_api import CubeClient
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.conf.transfer_conf import TransferConf, read_transfer_conf
from cube_core.errors import ConfError
from cube_transfer.cube_conf_file import update_cube_conf
from tests.transfer.passes import DICT_NAME, DIM, KEY_COUNT, Patch, base_content, rows_of
from tests.transfer.site import Site
from tests.waiting import wait_until

KEYS = np.arange(KEY_COUNT, dtype=np.uint64)


class Reader:
    """Seeks all keys in a thread, pinned and not, and notes what goes wrong."""

    def __init__(self, cube_conf: Path) -> None:
        self.seeks = 0
        self.versions: set[str] = set()
        self.failures: list[str] = []
        self.pin: str | None = None
        self._cube_conf = cube_conf
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(20)

    def more(self, seeks: int = 20) -> None:
        """Waits for so many further seeks."""
        target = self.seeks + seeks
        wait_until(lambda: self.seeks >= target)

    def _run(self) -> None:
        with CubeClient(self._cube_conf) as client:
            while not self._stop.is_set():
                try:
                    for pin in {None, self.pin}:
                        result = client.seek(DICT_NAME, KEYS, version=pin, dim=DIM, timeout_ms=5000)
                        version = str(result.version)
                        self.versions.add(version)
                        expected = rows_of(version.split("_")[0], KEYS)
                        if not np.array_equal(result.rows, expected):
                            self.failures.append(f"rows of {version} are others")
                except Exception as error:
                    self.failures.append(repr(error))
                self.seeks += 1


def test_no_seek_fails_while_two_shards_become_three(site: Site) -> None:
    cube_conf = site.root / "cube.conf"
    site.behind_proxies = False
    with site.transfer(cube_conf=cube_conf):
        site.trainer.announce(site.trainer.write("1"))
        site.await_stage("1", "done")
        assert read_cube_conf(cube_conf)[DICT_NAME].shard == 2
    with Reader(cube_conf) as reader:
        reader.pin = "1_1"
        reader.more()
        assert reader.failures == []
        site.reshard(3)
        with site.transfer(cube_conf=cube_conf):
            wait_until(lambda: read_cube_conf(cube_conf)[DICT_NAME].shard == 3)
            reader.more(100)
            assert reader.failures == []
            site.require_served("1")
            assert site.status()["passes"][0]["kind"] == "reshard"
            reader.pin = None
            site.trainer.announce(site.trainer.write("2"))
            site.await_stage("2", "done")
            site.require_served("2")
            wait_until(lambda: "2_2" in reader.versions)
            site.require_tidy()
    assert reader.failures == []
    # A further start has nothing to do.
    with site.transfer(cube_conf=cube_conf):
        wait_until(lambda: site.status()["replicas"]["cube2_0"]["ready"])
        assert [each["id"] for each in site.status()["passes"]] == ["2", "reshard:2", "1"]


def test_without_the_served_pass_the_next_goes_to_the_new_servers(site: Site) -> None:
    cube_conf = site.root / "cube.conf"
    site.behind_proxies = False
    with site.transfer(cube_conf=cube_conf):
        site.trainer.announce(site.trainer.write("1"))
        site.await_stage("1", "done")
    shutil.rmtree(site.trainer.output / "1")
    with Reader(cube_conf) as reader:
        reader.more()
        site.reshard(3)
        with site.transfer(cube_conf=cube_conf):
            site.await_stage("reshard:2", "failed")
            reader.more()
            assert read_cube_conf(cube_conf)[DICT_NAME].shard == 2
            site.trainer.announce(site.trainer.write("2"))
            site.await_stage("2", "done")
            site.require_served("2")
            wait_until(lambda: "2_2" in reader.versions)
    assert reader.failures == []


def test_a_patch_under_way_is_put_off_until_its_base_has_the_new_shards(site: Site) -> None:
    patch = Patch("10", "11", sets=[0, 1, 2], deletes=[3])
    with site.transfer(mode="base_delta"):
        site.trainer.announce(site.trainer.write("10"))
        site.await_stage("10", "done")
        for proxy in site.proxies.values():
            proxy.failing.add("download")
        site.trainer.announce_patches(site.trainer.write_patch(patch))
        site.await_step("10_11", "ship")
    site.reshard(3)
    with site.transfer(mode="base_delta"):
        site.await_stage("10_11", "done")
        site.require_content("10_11", patch.over(base_content("10")))


def test_a_pass_under_way_that_fails_leaves_the_new_servers_what_is_served(site: Site) -> None:
    with site.transfer():
        site.trainer.announce(site.trainer.write("1"))
        site.await_stage("1", "done")
        for proxy in site.proxies.values():
            proxy.failing.add("download")
        site.trainer.announce(site.trainer.write("2"))
        site.await_step("2", "ship")
    for file in (site.tmp / "pulls" / "2_2" / "input").iterdir():
        file.write_bytes(b"")
    site.reshard(3)
    with site.transfer():
        site.await_stage("2", "failed")
        wait_until(lambda: site.versions() == {"1_1"})
        site.require_served("1")


def test_a_cube_conf_that_is_spoilt_is_waited_for(site: Site) -> None:
    """The servers have switched by then: a failed pass would be one that is served."""
    cube_conf = site.root / "cube.conf"
    with site.transfer(cube_conf=cube_conf):
        site.trainer.announce(site.trainer.write("1"))
        site.await_stage("1", "done")
        good = cube_conf.read_text()
        cube_conf.write_text("{")
        site.trainer.announce(site.trainer.write("2"))
        wait_until(lambda: str(cube_conf) in (site.status()["deploying"] or {}).get("error", ""))
        assert site.stage("2") == "switched"
        cube_conf.write_text(good)
        site.await_stage("2", "done")
        assert site.published() == "2_2"


def test_servers_of_the_old_topology_are_not_taken_into_the_new(site: Site) -> None:
    with site.transfer():
        site.trainer.announce(site.trainer.write("1"))
        site.await_stage("1", "done")
    site.reshard(3, keep=1)
    with site.transfer():
        site.await_stage("reshard:2", "failed")
        error = site.pass_error("reshard:2")
        assert "cube0_0 (127.0.0.1:" in error
        assert "serves 1_1 in 2 shards, not 3; give the new topology servers of its own" in error
        assert site.command("cube0_0", "status")["cur_version"] == "1_1"


@pytest.fixture
def conf(tmp_path: Path) -> TransferConf:
    text = """[default]
dict_name: ctr
wget_port: 8098
donefile_address: d
output_address: o
tmp_address: t
shard_num: 2
copy_num: 2
[cube_agent]
cube0_0: h0:1:x
cube0_1: h1:1:x
cube1_0: h0:2:x
cube1_1: h1:2:x
"""
    path = tmp_path / "transfer.conf"
    path.write_text(text)
    return read_transfer_conf(path)


def test_what_else_stands_in_cube_conf_is_kept(tmp_path: Path, conf: TransferConf) -> None:
    path = tmp_path / "cube.conf"
    other = {"dict_name": "other", "shard": 1, "nodes": [{"ip": "h", "port": 1}]}
    ours = {**other, "dict_name": "ctr", "timeout": 77, "note": "kept"}
    path.write_text(json.dumps([other, ours]))
    assert update_cube_conf(path, conf)
    dicts = read_cube_conf(path)
    assert (dicts["ctr"].shard, dicts["ctr"].dup, dicts["ctr"].timeout_ms) == (2, 2, 77)
    replicas = [[str(each) for each in shard] for shard in dicts["ctr"].replicas()]
    assert replicas == [["h0:1", "h1:1"], ["h0:2", "h1:2"]]
    entries = json.loads(path.read_text())
    assert (entries[0], entries[1]["note"]) == (other, "kept")
    # A file that says so already is not touched: clients would read it anew.
    written_at = path.stat().st_mtime_ns
    assert not update_cube_conf(path, conf)
    assert path.stat().st_mtime_ns == written_at


def test_a_cube_conf_that_is_none_is_not_overwritten(tmp_path: Path, conf: TransferConf) -> None:
    path = tmp_path / "cube.conf"
    assert update_cube_conf(path, conf)
    path.write_text("{")
    with pytest.raises(ConfError, match=r"cube\.conf"):
        update_cube_conf(path, conf)
    assert path.read_text() == "{"
