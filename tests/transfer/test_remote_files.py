"""Passes and donefiles on other machines, by FTP, S3 and HDFS: one behaviour for all of them."""

from __future__ import annotations

import contextlib
import ftplib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cube_core.errors import DeployError
from cube_transfer.arrow_files import ArrowFiles
from cube_transfer.part_file import PartFile
from cube_transfer.remote import FileFacts
from cube_transfer.source import PulledPass
from tests.builder.test_original_source import write_pass as write_original_pass
from tests.transfer.hadoop import hdfs as hdfs
from tests.transfer.passes import write_manifest
from tests.transfer.remote_directories import (
    Address,
    bring,
    denied,
    ftp_directory,
    hdfs_directory,
    s3_bucket,
    s3_server,
)
from tests.transfer.remote_pass import (
    KEY_COUNT,
    leave_part,
    nest,
    require_pulled,
    require_same_tree,
    write_pass,
)
from tests.transfer.site import Site
from tests.waiting import wait_until

pytest.importorskip("pyarrow")

Serve = Callable[[Path], contextlib.AbstractContextManager[Address]]

every_source = pytest.mark.parametrize("serve", [ftp_directory, s3_bucket, hdfs_directory])


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_pass(tmp_path / "trainer")


@pytest.fixture
def pulled(tmp_path: Path) -> PulledPass:
    return PulledPass(tmp_path / "pulls" / "1_1")


async def _pull(pulled: PulledPass, location: str, dense: str = "") -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        if dense:
            await pulled.pull_dense(dense, http)
        await pulled.pull_input(location, http)


@every_source
async def test_a_pass_is_resumed(train: Path, pulled: PulledPass, serve: Serve) -> None:
    part = train / "1" / "embedding" / "part-00001"
    with serve(train) as address:
        leave_part(pulled, part.name, part.read_bytes()[:700])
        await _pull(pulled, address("1/embedding"), address("1/dense"))
        require_pulled(pulled, train)
        pulled.remove()
        # What is there is not read again: a wrong beginning shows in the checksum.
        leave_part(pulled, part.name, b"x" * 700)
        with pytest.raises(OSError, match="read anew"):
            await _pull(pulled, address("1/embedding"))
        pulled.remove()
        with pytest.raises(DeployError, match="/nowhere"):
            await _pull(pulled, address("nowhere"))


@every_source
async def test_a_directory_without_manifest(train: Path, pulled: PulledPass, serve: Serve) -> None:
    (train / "1" / "embedding" / "_manifest.json").unlink()
    with serve(train) as address:
        await _pull(pulled, address("1/embedding"))
    require_pulled(pulled, train)


@every_source
@pytest.mark.parametrize("listed", [False, True])
async def test_subdirectories(train: Path, pulled: PulledPass, serve: Serve, listed: bool) -> None:
    embedding = train / "1" / "embedding"
    (embedding / "_manifest.json").unlink()
    nest(embedding)
    if listed:
        shutil.rmtree(embedding / "_temporary")
        shutil.rmtree(embedding / "day=1" / ".staging")
        write_manifest(embedding)
    with serve(train) as address:
        await _pull(pulled, address("1/embedding"))
    require_same_tree(pulled.input, embedding)


@every_source
async def test_shards_of_the_original(tmp_path: Path, pulled: PulledPass, serve: Serve) -> None:
    """The archives beside them, which hold the same once more, are left."""
    output = tmp_path / "out" / "10_10"
    write_original_pass(output)
    with serve(tmp_path / "out") as address:
        await _pull(pulled, address("10_10"))
    shards = {path for path in output.rglob("*.?") if path.is_file()}
    assert {path.relative_to(pulled.input) for path in pulled.input.rglob("*.?")} == {
        path.relative_to(output) for path in shards
    }
    assert len(list(pulled.input.iterdir())) == 3


@every_source
async def test_one_file(train: Path, pulled: PulledPass, serve: Serve) -> None:
    with serve(train) as address:
        await _pull(pulled, address("1/embedding/part-00001"))
        (pull,) = pulled.input.iterdir()
        assert pull.read_bytes() == (train / "1" / "embedding" / "part-00001").read_bytes()
        pulled.remove()
        with pytest.raises(DeployError, match="part-00007"):
            await _pull(pulled, address("1/embedding/part-00007"))


def _fail_after(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The network goes after so many bytes of part-00001, once."""
    write = PartFile.write

    def cut(self: PartFile, block: bytes) -> None:
        if "part-00001" not in self.where:
            return write(self, block)
        monkeypatch.undo()
        write(self, block[:size])
        raise ConnectionResetError("the network is gone")

    monkeypatch.setattr(PartFile, "write", cut)


@every_source
@pytest.mark.parametrize("changed", [False, True])
async def test_without_a_manifest_the_same_file_is_gone_on_with(
    train: Path, pulled: PulledPass, serve: Serve, changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = train / "1" / "embedding"
    (embedding / "_manifest.json").unlink()
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            address = stack.enter_context(serve(train))
            _fail_after(patch, 700)
            with pytest.raises(OSError, match="the network is gone"):
                await _pull(pulled, address("1/embedding"))
        assert (pulled.input / ".part-00001.part").stat().st_size == 700
        if changed:
            for name in ("part-00000", "part-00001"):
                part = embedding / name
                part.write_bytes(bytes(part.stat().st_size))
                os.utime(part, (1_000_000, 1_000_000))
            names = ("1/embedding/part-00000", "1/embedding/part-00001")
            bring(serve, address, train, *names)
        begins = _record_begins(monkeypatch)
        await _pull(pulled, address("1/embedding"))
    require_pulled(pulled, train)
    # What was complete is not read again, unless it is another file by now.
    assert begins == ({"part-00000": 0, "part-00001": 0} if changed else {"part-00001": 700})


def _record_begins(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Where the reading of each file begins."""
    begins: dict[str, int] = {}
    begin = PartFile.begin

    def recorded(self: PartFile, offset: int, facts: FileFacts) -> None:
        begins[self.where.partition("?")[0].rpartition("/")[2]] = offset
        begin(self, offset, facts)

    monkeypatch.setattr(PartFile, "begin", recorded)
    return begins


@every_source
async def test_a_file_that_is_replaced_while_it_is_read(
    train: Path, pulled: PulledPass, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    (train / "1" / "embedding" / "_manifest.json").unlink()
    part = train / "1" / "embedding" / "part-00001"
    finish = PartFile.write
    with serve(train) as address:

        def replace_then_write(self: PartFile, block: bytes) -> None:
            if "part-00001" in self.where:
                monkeypatch.undo()
                part.write_bytes(bytes(part.stat().st_size))
                os.utime(part, (1_000_000, 1_000_000))
                bring(serve, address, train, "1/embedding/part-00001")
            finish(self, block)

        monkeypatch.setattr(PartFile, "write", replace_then_write)
        with pytest.raises(OSError, match=r"part-00001.*: was replaced while it was read"):
            await _pull(pulled, address("1/embedding"))
        await _pull(pulled, address("1/embedding"))
    require_pulled(pulled, train)


async def test_s3_that_refuses_fails_the_pass(train: Path, pulled: PulledPass) -> None:
    with s3_bucket(train) as address:
        location = address("1/embedding")
        with (
            denied(address, "s3:GetObject"),
            pytest.raises(DeployError, match=r"s3://passes/1/embedding/.*ACCESS_DENIED"),
        ):
            await _pull(pulled, location)
        await _pull(pulled, location)
    require_pulled(pulled, train)


def test_s3_that_is_down_is_told_and_tried_again(site: Site, train: Path) -> None:
    with s3_bucket(train) as address:
        port = int(re.findall(r":(\d+)&", address(""))[0])
        locations = {"input": address("1/embedding"), "dense": address("1/dense")}
    site.trainer.announce({"id": "1", "key": "1", **locations})
    # The daemon has the environment of these.
    with s3_server(), site.transfer():
        words = "s3://passes/1/dense/manifest.json"
        wait_until(
            lambda: words in (site.status()["deploying"] or {}).get("error", ""),
            timeout_s=60,
            what="the error of s3",
        )
        assert site.stage("1") == "noticed"
        with s3_server(port):
            site.await_stage("1", "done")
    site.require_served("1", key_count=KEY_COUNT)


async def test_a_listing_that_fails_names_the_address(unused_tcp_port: int) -> None:
    location = f"s3://passes/1?endpoint_override=127.0.0.1:{unused_tcp_port}&scheme=http"
    words = r"s3://passes/1\?.*NETWORK_CONNECTION"
    with s3_server(), pytest.raises(OSError, match=words) as caught:
        await ArrowFiles().list(location)
    assert not isinstance(caught.value, DeployError)


async def test_an_ftp_server_that_lists_no_directories(train: Path, pulled: PulledPass) -> None:
    with ftp_directory(train, without=("MLSD", "MDTM")) as address:
        # Nor does it tell times, so that nothing is gone on with.
        await _pull(pulled, address("1/embedding"))
        require_pulled(pulled, train)
        pulled.remove()
        (train / "1" / "embedding" / "_manifest.json").unlink()
        with pytest.raises(DeployError, match=r"ftp://.*/1/embedding: 50.*_manifest\.json"):
            await _pull(pulled, address("1/embedding"))


async def test_a_listing_of_too_many_files(
    train: Path, pulled: PulledPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    (train / "1" / "embedding" / "_manifest.json").unlink()
    monkeypatch.setattr("cube_transfer.remote.LISTED_FILES_MAX", 2)
    with (
        ftp_directory(train) as address,
        pytest.raises(DeployError, match=r"/1/embedding: more than LISTED_FILES_MAX = 2 files"),
    ):
        await _pull(pulled, address("1/embedding"))


async def test_a_source_whose_directories_do_not_end(train: Path, pulled: PulledPass) -> None:
    embedding = train / "1" / "embedding"
    (embedding / "_manifest.json").unlink()
    deep = embedding.joinpath(*("d" for _ in range(40)))
    deep.mkdir(parents=True)
    with ftp_directory(train) as address:
        for location in (address("1/embedding"), str(embedding)):
            with pytest.raises(DeployError, match=r"below DIRECTORY_DEPTH_MAX = 32"):
                await _pull(pulled, location)


@every_source
def test_a_donefile(site: Site, train: Path, serve: Serve) -> None:
    donefile = train / "donefile" / "base.txt"
    donefile.parent.mkdir()
    donefile.write_text(json.dumps(site.trainer.line("1")) + "\n")
    with serve(train) as address, site.transfer(donefile_address=address("donefile")):
        site.await_stage("1", "done")
        site.require_served("1", key_count=KEY_COUNT)
        assert site.published() == "1_1"
        site.require_tidy()


async def test_ftp_asks_for_the_rest_of_a_file(train: Path, pulled: PulledPass) -> None:
    part = train / "1" / "embedding" / "part-00001"
    commands: list[str] = []
    leave_part(pulled, part.name, part.read_bytes()[:700])
    with ftp_directory(train, commands) as address:
        await _pull(pulled, address("1/embedding"))
    assert "REST 700" in commands


async def test_ftp_goes_on_after_a_cut_without_a_manifest(train: Path, pulled: PulledPass) -> None:
    (train / "1" / "embedding" / "_manifest.json").unlink()
    commands: list[str] = []
    with ftp_directory(train, commands, cuts={"part-00001": 700}) as address:
        with pytest.raises(OSError, match=r"ftp://.*/part-00001: 426") as caught:
            await _pull(pulled, address("1/embedding"))
        assert not isinstance(caught.value, DeployError)
        await _pull(pulled, address("1/embedding"))
    assert "REST 700" in commands
    assert commands.count("RETR /1/embedding/part-00000") == 1
    require_pulled(pulled, train)


async def test_ftp_takes_credentials_and_tells_none(train: Path, pulled: PulledPass) -> None:
    with ftp_directory(train) as address:
        location = address("1/embedding")
        with pytest.raises(DeployError, match="530") as caught:
            await _pull(pulled, location.replace("//", "//trainer:wrong-one@"))
        assert "wrong-one" not in str(caught.value)
        await _pull(pulled, location.replace("//", "//trainer:s3cret@"))
    require_pulled(pulled, train)


async def test_ftp_that_sends_too_much_fails_the_pass(
    train: Path, pulled: PulledPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the server says afterwards of the transfer that was broken off."""

    write = PartFile.write

    def quit_as_vsftpd_answers(self: ftplib.FTP) -> None:
        raise ftplib.error_temp("426 Failure writing network stream")  # noqa: S321

    def broken_off(self: PartFile, block: bytes) -> None:
        monkeypatch.setattr(ftplib.FTP, "quit", quit_as_vsftpd_answers)
        write(self, block)

    monkeypatch.setattr(PartFile, "write", broken_off)
    files = [{"name": "part-00001", "size": 100}]
    (train / "1" / "embedding" / "_manifest.json").write_text(json.dumps({"files": files}))
    with (
        ftp_directory(train) as address,
        pytest.raises(DeployError, match="part-00001: more than 100 bytes"),
    ):
        await _pull(pulled, address("1/embedding"))


async def test_a_server_that_is_down(pulled: PulledPass, unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match="ftp://127") as caught:
        await _pull(pulled, f"ftp://127.0.0.1:{unused_tcp_port}/1")
    assert not isinstance(caught.value, DeployError)


async def test_hdfs_without_any_client_says_what_it_needs(
    pulled: PulledPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    monkeypatch.setitem(sys.modules, "cube_core.native_hdfs", None)
    with pytest.raises(DeployError, match=r"hdfs://nn:8020/1/.*cube-serving\[hdfs\]") as caught:
        await _pull(pulled, "hdfs://nn:8020/1")
    assert "\n" not in str(caught.value)


async def test_a_namenode_that_is_down_is_told_soon(
    pulled: PulledPass, unused_tcp_port: int
) -> None:
    begin_s = time.monotonic()
    location = f"hdfs://127.0.0.1:{unused_tcp_port}/1"
    with pytest.raises(OSError, match=rf"{location}(/.*)?: .*refused") as caught:
        await _pull(pulled, location)
    assert not isinstance(caught.value, DeployError)
    assert time.monotonic() - begin_s < 30


async def test_hdfs_tells_what_is_no_directory(train: Path, pulled: PulledPass) -> None:
    with hdfs_directory(train) as address, pytest.raises(DeployError, match="part-00001/x: no suc"):
        await _pull(pulled, address("1/embedding/part-00001/x"))
