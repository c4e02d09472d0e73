"""Passes and donefiles on other machines, by FTP, S3 and HDFS: one behaviour for all of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from cube_core.errors import DeployError
from cube_transfer.source import PulledPass
from tests.transfer.remote_directories import Address, ftp_directory, hdfs_stand_in, s3_bucket
from tests.transfer.remote_pass import KEY_COUNT, leave_part, require_pulled, write_pass
from tests.transfer.site import Site

pytest.importorskip("pyarrow")

Serve = Callable[[Path], contextlib.AbstractContextManager[Address]]

every_source = pytest.mark.parametrize("serve", [ftp_directory, s3_bucket, hdfs_stand_in])


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


@pytest.mark.parametrize("serve", [ftp_directory, s3_bucket])
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


async def test_ftp_takes_credentials_and_tells_none(train: Path, pulled: PulledPass) -> None:
    with ftp_directory(train) as address:
        location = address("1/embedding")
        with pytest.raises(DeployError, match="530") as caught:
            await _pull(pulled, location.replace("//", "//trainer:wrong-one@"))
        assert "wrong-one" not in str(caught.value)
        await _pull(pulled, location.replace("//", "//trainer:s3cret@"))
    require_pulled(pulled, train)


async def test_a_server_that_is_down(pulled: PulledPass, unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match="ftp://127") as caught:
        await _pull(pulled, f"ftp://127.0.0.1:{unused_tcp_port}/1")
    assert not isinstance(caught.value, DeployError)


async def test_hdfs_without_hadoops_client_says_what_it_needs(
    pulled: PulledPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    with pytest.raises(DeployError, match=r"hdfs://nn:8020/1.*needs.*libhdfs") as caught:
        await _pull(pulled, "hdfs://nn:8020/1")
    assert "\n" not in str(caught.value)
