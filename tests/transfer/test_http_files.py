"""Downloads over HTTP: resumed, checked, tried again."""

from __future__ import annotations

import base64
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator
from hashlib import md5
from pathlib import Path

import httpx
import pytest

from cube_core.errors import ConfError, DeployError
from cube_transfer.input_roots import InputRoots
from cube_transfer.remote import child_url, relative_url, shown
from cube_transfer.source import PulledPass
from cube_transfer.watch import DonefileWatch
from tests.transfer.http_directory import http_directory
from tests.transfer.passes import write_embedding
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


def _list_names_only(embedding: Path) -> None:
    """A manifest without sizes and checksums."""
    files = [{"name": part.name} for part in sorted(embedding.glob("part-*"))]
    (embedding / "_manifest.json").write_text(json.dumps({"files": files}))


@pytest.mark.parametrize("etag", ["", '"v1"', 'W/"v1"'])
async def test_without_checksums_the_same_file_is_gone_on_with(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient, etag: str
) -> None:
    _list_names_only(train / "1" / "embedding")
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        if etag:
            source.etags["part-00001"] = etag
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        await pulled.pull_input(url, http)
        assert source.ranges == ["bytes=1000-"]
        (condition,) = source.if_ranges
        assert (condition == etag) == etag.startswith('"')
        require_pulled(pulled, train)
        # The others, complete already, were not asked for again.
        assert source.requests.count("/1/embedding/part-00000") == 1


@pytest.mark.parametrize("etag", ["", '"v1"'])
async def test_without_checksums_another_file_is_read_anew(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient, etag: str
) -> None:
    embedding = train / "1" / "embedding"
    _list_names_only(embedding)
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        if etag:
            source.etags = {"part-00000": etag, "part-00001": etag}
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        for number, name in enumerate(("part-00000", "part-00001")):
            # Other bytes, as many of them: the time, or the ETag, is what tells.
            part = embedding / name
            part.write_bytes(bytes(part.stat().st_size - 1) + b"x")
            os.utime(part, (1, 1))
            if etag:
                source.etags[name] = f'"v2-{number}"'
        await pulled.pull_input(url, http)
        assert source.ranges == ["bytes=1000-"]
    require_pulled(pulled, train)


async def test_a_server_that_goes_on_with_another_file_all_the_same(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient
) -> None:
    """If-Range is overlooked; what comes is told by its ETag."""
    embedding = train / "1" / "embedding"
    _list_names_only(embedding)
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        source.etags["part-00001"] = '"v1"'
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        source.overlooks_conditions = True
        source.etags["part-00001"] = '"v2"'
        with pytest.raises(OSError, match=r"part-00001: is another file .* read anew"):
            await pulled.pull_input(url, http)
        await pulled.pull_input(url, http)
    require_pulled(pulled, train)


async def test_bytes_that_were_damaged_on_disk_are_not_gone_on_with(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient
) -> None:
    _list_names_only(train / "1" / "embedding")
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        (pulled.input / ".part-00001.part").write_bytes(bytes(1000))
        (pulled.input / "part-00000").write_bytes(b"cut")
        await pulled.pull_input(url, http)
        assert source.ranges == []
    require_pulled(pulled, train)


async def test_content_md5_is_checked(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient
) -> None:
    embedding = train / "1" / "embedding"
    _list_names_only(embedding)
    data = (embedding / "part-00001").read_bytes()
    right = base64.b64encode(md5(data).digest()).decode()  # noqa: S324
    wrong = base64.b64encode(md5(b"x").digest()).decode()  # noqa: S324
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding"
        source.md5s["part-00001"] = wrong
        with pytest.raises(DeployError, match=r"part-00001: md5 \w+, but the source says"):
            await pulled.pull_input(url, http)
        # Also when the file comes in two parts, of which the first told it.
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        with pytest.raises(OSError, match=r"part-00001: md5 .* read anew"):
            await pulled.pull_input(url, http)
        source.md5s["part-00001"] = right
        await pulled.pull_input(url, http)
    require_pulled(pulled, train)


async def test_one_file_is_a_pass(train: Path, pulled: PulledPass, http: httpx.AsyncClient) -> None:
    with http_directory(train) as source:
        url = f"{source.url}/1/embedding/part-00001"
        source.cuts["part-00001"] = 1000
        with pytest.raises(httpx.RequestError):
            await pulled.pull_input(url, http)
        await pulled.pull_input(url, http)
        assert source.ranges == ["bytes=1000-"]
        (pull,) = pulled.input.iterdir()
        assert pull.read_bytes() == (train / "1" / "embedding" / "part-00001").read_bytes()
        pulled.remove()
        # A page of a directory is none.
        (train / "1" / "embedding" / "_manifest.json").unlink()
        for location in (f"{source.url}/1/embedding", f"{source.url}/1/embedding/"):
            with pytest.raises(DeployError, match=r"_manifest.json: HTTP 404.*lists no dire"):
                await pulled.pull_input(location, http)


async def test_files_are_downloaded_in_parallel(
    train: Path, pulled: PulledPass, http: httpx.AsyncClient
) -> None:
    embedding = train / "1" / "embedding"
    shutil.rmtree(embedding)
    write_embedding(embedding, "1", part_count=4)
    with http_directory(train) as source:
        # Two are answered when two have come.
        source.meeting = threading.Barrier(2)
        await pulled.pull_input(f"{source.url}/1/embedding", http)
    assert len(list(pulled.input.iterdir())) == 4


async def test_redirects_are_followed_inside_the_roots(
    train: Path, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    with http_directory(train) as source, http_directory(tmp_path) as other:
        url = f"{source.url}/moved"
        names = ["_manifest.json", *(f"part-0000{number}" for number in range(3))]
        source.redirects = {f"/moved/{name}": f"/1/embedding/{name}" for name in names}
        pulled = PulledPass(tmp_path / "pulls" / "1", roots=InputRoots([source.url]))
        await pulled.pull_input(url, http)
        require_pulled(pulled, train)
        source.redirects["/moved/part-00001"] = f"{other.url}/trainer/1/embedding/part-00001"
        pulled = PulledPass(tmp_path / "pulls" / "2", roots=InputRoots([source.url]))
        with pytest.raises(DeployError, match=r"part-00001: is outside the input_roots"):
            await pulled.pull_input(url, http)
        assert other.requests == []
        pulled = PulledPass(tmp_path / "pulls" / "3")
        await pulled.pull_input(url, http)
        source.redirects["/moved/part-00001"] = "/moved/part-00001"
        pulled = PulledPass(tmp_path / "pulls" / "4")
        with pytest.raises(DeployError, match=r"leads on more than REDIRECTS_MAX = 10 times"):
            await pulled.pull_input(url, http)
        source.redirects["/moved/part-00001"] = "ftp://user:secret@elsewhere/part-00001"
        with pytest.raises(DeployError, match=r"leads to ftp://elsewhere/.* not http"):
            await pulled.pull_input(url, http)


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
