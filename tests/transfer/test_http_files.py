"""Downloads over HTTP: resumed, checked, tried again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from hashlib import md5
from pathlib import Path

import httpx
import pytest

from cube_core.errors import ConfError, DeployError
from cube_transfer.remote import child_url, relative_url, shown
from cube_transfer.source import PulledPass
from cube_transfer.watch import DonefileWatch
from tests.transfer.http_directory import http_directory
from tests.transfer.remote_pass import leave_part, require_pulled, write_pass
from tests.transfer.site import Site
from tests.waiting import wait_until


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(trust_env=False) as client:
        yield client


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_pass(tmp_path / "trainer")


@pytest.fixture
def pulled(tmp_path: Path) -> PulledPass:
    return PulledPass(tmp_path / "pulls" / "1_1")


async def test_a_file_goes_on_where_it_was_cut(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient
) -> None:
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        assert (pulled.input / ".part-00001.part").stat().st_size == 1000
        await pulled.pull_input(url, http)
        assert source.ranges == ["bytes=1000-"]
        require_pulled(pulled, train)
        # The others were not asked for again.
        assert source.requests.count("/1/embedding/part-00000") == 1


@pytest.mark.parametrize("size", [1000, 10_000_000])
async def test_a_part_of_another_file_is_not_gone_on_with(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient, size: int
) -> None:
    leave_part(pulled, "part-00001", b"x" * size)
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        with pytest.raises(OSError, match=r"part-00001: .*read anew"):
            await pulled.pull_input(url, http)
        await pulled.pull_input(url, http)
    require_pulled(pulled, train)


async def test_a_manifest_of_md5(train: Path, pulled: PulledPass, http: httpx.AsyncClient) -> None:
    embedding = train / "1" / "embedding"
    files = [
        {"name": part.name, "md5": md5(part.read_bytes()).hexdigest()}  # noqa: S324
        for part in embedding.glob("part-*")
    ]
    (embedding / "_manifest.json").write_text(json.dumps({"files": files}))
    with http_directory(train) as source:
        locations = (str(embedding), f"{source.url}/1/embedding")
        for location in locations:
            await pulled.pull_input(location, http)
            require_pulled(pulled, train)
            pulled.remove()
        (embedding / "part-00002").write_bytes(b"x" * 100)
        for location in locations:
            with pytest.raises(DeployError, match=r"part-00002: md5 \w+, but .* is corrupt"):
                await pulled.pull_input(location, http)


def test_a_source_that_is_down_is_told_and_tried_again(site: Site) -> None:
    trainer = site.trainer
    trainer.announce(trainer.write("1"))
    with http_directory(trainer.output) as source:
        source.statuses["part-00001"] = 503
        with site.transfer(donefile_address=f"{source.url}/donefile"):
            words = "part-00001: HTTP 503"
            wait_until(lambda: words in (site.status()["deploying"] or {}).get("error", ""))
            source.statuses.clear()
            site.await_stage("1", "done")
            site.require_served("1")
            site.require_tidy()


def test_addresses() -> None:
    s3 = "s3://b/d?endpoint_override=h:1"
    donefile = child_url(s3, "base.txt")
    assert donefile == "s3://b/d/base.txt?endpoint_override=h:1"
    assert relative_url(donefile, "../5/x") == "s3://b/5/x?endpoint_override=h:1"
    assert relative_url("ftp://u@h/d/base.txt", "5") == "ftp://u@h/d/5"
    assert relative_url("http://h:1/d/base.txt?v=1", "../5") == "http://h:1/5"
    assert shown("ftp://u:p@h:21/x") == "ftp://h:21/x"


async def test_a_scheme_whose_library_is_missing(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfError, match=r"donefile_address: s3://b/d.*pip install"):
        DonefileWatch("s3://b/d", 1000, http)
