"""A dense model that comes over HTTP from where the daemon publishes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response

from ctr_serving.conf import read_engine_confs
from ctr_serving.model_fetch import ModelFetcher
from cube_core.access import Access
from cube_core.errors import ConfError
from cube_core.model_directory import publish, publish_staged, published_version
from cube_core.tls import Renewed
from cube_core.wire.http import readers_only
from cube_transfer.model_routes import MODELS_PATH, PublishedModel, model_router
from tests.ctr.models import direct_probabilities, embedding, requests_of
from tests.ctr.service import Ctr, Shards, ctr_running, write_conf
from tests.waiting import wait_until

TOKEN = "a-token-to-read-with"  # noqa: S105


class Publication:
    """What a daemon publishes, on a port of its own.

    Attributes:
        files: paths of files that were asked for.
        spoil: makes another answer of a good one.
    """

    def __init__(self, deploy_path: Path, access: Access) -> None:
        self.deploy_path = deploy_path
        self.files: list[str] = []
        self.spoil: Callable[[str, bytes], bytes] = lambda path, body: body
        app = FastAPI()
        app.middleware("http")(self._seen)
        app.include_router(model_router(deploy_path, [readers_only(access)]))
        config = uvicorn.Config(app, port=0, lifespan="off", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        wait_until(lambda: self._server.started, what="the publication listens")
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}{MODELS_PATH}"

    def publish(self, model: Path, version: str) -> None:
        publish(model, self.deploy_path, version)

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _seen(self, request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        path = request.url.path
        if not path.endswith("/current"):
            self.files.append(path)
        body = b"".join([piece async for piece in response.body_iterator])  # type: ignore[attr-defined]
        headers = {name: response.headers[name] for name in ("etag",) if name in response.headers}
        return Response(self.spoil(path, body), response.status_code, headers)


@pytest.fixture
def published(tmp_path: Path) -> Iterator[Publication]:
    publication = Publication(tmp_path / "published", Access())
    yield publication
    publication.close()


def write_fetching_conf(root: Path, shards: Shards, url: str) -> None:
    write_conf(root, shards.ports, extra=f'model_url: "{url}"')


def require_model(ctr: Ctr, version: str) -> None:
    wait_until(lambda: ctr.model_version() == version, 60, f"model {version}")


def problem(ctr: Ctr) -> str:
    return str(ctr.status()["source_problem"])


def test_each_model_is_fetched_and_served(
    tmp_path: Path, two_versions: Shards, models: dict[int, Path], published: Publication
) -> None:
    published.publish(models[1], "1_1")
    write_fetching_conf(tmp_path, two_versions, published.url)
    ids, dense = requests_of(3)
    with ctr_running(tmp_path) as ctr, ctr.client() as client:
        for seed in (1, 2):
            if seed == 2:
                published.publish(models[2], "2_2")
            require_model(ctr, f"{seed}_{seed}")
            expected = direct_probabilities(models[seed], embedding(ids, seed), dense)
            assert client.predict(ids, dense) == pytest.approx(expected, abs=1e-6)
            assert problem(ctr) == ""
        names = {path.name for path in models[1].iterdir()}
        assert sorted(published.files) == sorted(
            f"{MODELS_PATH}/{version}/{name}" for version in ("1_1", "2_2") for name in names
        )
        assert {path.name for path in (tmp_path / "model").iterdir() if path.is_dir()} == {
            *("1_1", "2_2", "current")
        }
    # What is here already is not fetched again after a restart.
    before = len(published.files)
    with ctr_running(tmp_path) as ctr:
        require_model(ctr, "2_2")
        assert len(published.files) == before


def test_what_is_damaged_on_the_way_is_refused(
    tmp_path: Path, two_versions: Shards, models: dict[int, Path], published: Publication
) -> None:
    published.publish(models[1], "1_1")
    write_fetching_conf(tmp_path, two_versions, published.url)
    with ctr_running(tmp_path) as ctr:
        require_model(ctr, "1_1")
        for spoilt, said in (
            (lambda body: body[:-1], "truncated"),
            (lambda body: body + b"x", "is longer"),
            (lambda body: bytes([body[0] ^ 1]) + body[1:], "corrupt"),
        ):
            published.spoil = lambda path, body, spoilt=spoilt: (  # type: ignore[misc]
                spoilt(body) if path.endswith(".pdiparams") else body
            )
            published.publish(models[2], "2_2")
            wait_until(lambda said=said: said in problem(ctr), what=said)  # type: ignore[misc]
            assert "model.pdiparams" in problem(ctr)
            assert ctr.model_version() == "1_1"
            assert 'ctr_model_problem{engine="ctr_prediction"} 1.0' in ctr.get("/metrics").text
        published.spoil = lambda path, body: body
        require_model(ctr, "2_2")
        assert problem(ctr) == ""
        assert not list((tmp_path / "model").glob(".publishing*"))


def test_a_daemon_that_is_away_is_told_and_waited_for(
    tmp_path: Path, two_versions: Shards, models: dict[int, Path]
) -> None:
    write_fetching_conf(tmp_path, two_versions, "http://127.0.0.1:1/models")
    shutil.copytree(models[1], tmp_path / "first")
    with ctr_running(tmp_path) as ctr:
        wait_until(lambda: problem(ctr), 60, "why there is no model")
        assert "http://127.0.0.1:1/models" in problem(ctr)
        # Whoever has the files may still put them there.
        publish(tmp_path / "first", tmp_path / "model", "1_1")
        require_model(ctr, "1_1")
        assert problem(ctr)


def test_the_read_token_is_shown(
    tmp_path: Path, two_versions: Shards, models: dict[int, Path]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    publication = Publication(
        tmp_path / "published", Access(read_token=TOKEN, operate_token=f"{TOKEN} or more")
    )
    try:
        publication.publish(models[1], "1_1")
        assert httpx.get(f"{publication.url}/current").status_code == 401
        assert httpx.get(f"{publication.url}/1_1/model.json").status_code == 401
        write_fetching_conf(tmp_path, two_versions, publication.url)
        with ctr_running(tmp_path, f"--read_token_file={tmp_path}/token") as ctr:
            wait_until(lambda: published_version(tmp_path / "model") == "1_1", 60, "the model")
            wait_until(lambda: ctr.get("/ready").status_code == 200, 60, "readiness")
    finally:
        publication.close()


def test_of_several_workers_one_fetches(
    tmp_path: Path, two_versions: Shards, models: dict[int, Path], published: Publication
) -> None:
    published.publish(models[1], "1_1")
    write_fetching_conf(tmp_path, two_versions, published.url)
    with ctr_running(tmp_path, "--workers=2") as ctr:
        wait_until(lambda: ctr.get("/ready").status_code == 200, 60, "both workers ready")
        assert len(published.files) == len(set(published.files)) == len(list(models[1].iterdir()))


def test_nothing_else_of_the_directory_is_shown(
    tmp_path: Path, models: dict[int, Path], published: Publication
) -> None:
    assert httpx.get(f"{published.url}/current").status_code == 404
    published.publish(models[1], "1_1")
    listed = httpx.get(f"{published.url}/current")
    assert listed.json()["version"] == "1_1"
    assert {each["name"] for each in listed.json()["files"]} == {
        path.name for path in models[1].iterdir()
    }
    again = {"if-none-match": listed.headers["etag"]}
    assert httpx.get(f"{published.url}/current", headers=again).status_code == 304
    (tmp_path / "published" / "secret").write_text("of nobody's concern")
    (tmp_path / "published" / "1_1" / ".hidden").write_text("of nobody's concern")
    for path in ("current/model.json", "1_1/..%2fsecret", "1_1/.hidden", "../secret", "1_1/none"):
        assert httpx.get(f"{published.url}/{path}").status_code == 404, path


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({"version": "../1_1", "files": []}, "version"),
        ({"version": "1_1", "files": [{"name": "../x", "size": 1}]}, "is no plain file name"),
        ({"version": "1_1", "files": [{"name": "x", "size": 1 << 40}]}, "MODEL_BYTES_MAX"),
        ({"version": "1_1", "files": [{"name": "x"}]}, "is longer than was said"),
    ],
)
def test_a_listing_cannot_leave_the_directory(
    tmp_path: Path,
    two_versions: Shards,
    models: dict[int, Path],
    published: Publication,
    listed: dict[str, Any],
    said: str,
) -> None:
    published.publish(models[1], "1_1")
    published.spoil = lambda path, body: (
        json.dumps(listed).encode() if path.endswith("/current") else b"bytes"
    )
    if "x" in json.dumps(listed):
        (tmp_path / "published" / "1_1" / "x").write_text("bytes")
    write_fetching_conf(tmp_path, two_versions, published.url)
    with ctr_running(tmp_path) as ctr:
        wait_until(lambda: said in problem(ctr), 60, said)
        # It may be at it again.
        names = {path.name for path in (tmp_path / "model").iterdir()} - {".publishing-1_1"}
        assert names == {".fetching.lock"}


@contextlib.asynccontextmanager
async def _fetcher(published: Publication, directory: Path) -> AsyncIterator[ModelFetcher]:
    async with httpx.AsyncClient(trust_env=False) as http:
        clients = Renewed(lambda: http, None)
        yield ModelFetcher(published.url, directory, clients, lambda problem: None)


def _write_model(directory: Path, *names: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name in names:
        (directory / name).write_text(name)
    return directory


async def test_a_model_that_was_lost_is_fetched_again(
    tmp_path: Path, published: Publication
) -> None:
    """As a fetcher leaves it that is killed while it puts another model under the same version."""
    published.publish(_write_model(tmp_path / "trained", "manifest.json"), "1_1")
    here = tmp_path / "here"
    async with _fetcher(published, here) as fetcher:
        await fetcher.poll()
    shutil.rmtree(here / "1_1")
    async with _fetcher(published, here) as fetcher:
        await fetcher.poll()
    assert (here / "current" / "manifest.json").read_text() == "manifest.json"


async def test_a_model_is_published_whole_when_the_fetcher_is_stopped_meanwhile(
    tmp_path: Path, published: Publication, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.publish(_write_model(tmp_path / "trained", "manifest.json"), "1_1")
    began, go_on = threading.Event(), threading.Event()

    def publish_slowly(staging: Path, version: str) -> None:
        began.set()
        go_on.wait(10)
        publish_staged(staging, version)

    monkeypatch.setattr("ctr_serving.model_fetch.publish_staged", publish_slowly)
    async with _fetcher(published, tmp_path / "here") as fetcher:
        fetching = asyncio.ensure_future(fetcher.poll())
        await asyncio.to_thread(began.wait, 10)
        fetching.cancel()
        await asyncio.wait({fetching}, timeout=1)
        go_on.set()
        is_there = (tmp_path / "here" / "1_1" / "manifest.json").is_file
        await asyncio.to_thread(wait_until, is_there, what="the whole model")


async def test_names_that_mean_something_in_addresses(
    tmp_path: Path, published: Publication
) -> None:
    """Fluid parameters are named by whoever wrote the network."""
    names = ["fc#0.w_0", "fc?0.b_0", "fc%410"]
    published.publish(_write_model(tmp_path / "trained", *names), "1_1")
    async with _fetcher(published, tmp_path / "here") as fetcher:
        await fetcher.poll()
    found = {path.name: path.read_text() for path in (tmp_path / "here" / "1_1").iterdir()}
    assert found == {name: name for name in names}


async def test_what_is_hidden_beside_a_model_is_not_fetched(
    tmp_path: Path, published: Publication
) -> None:
    """Such as the .nfs… files of a file that was removed while somebody had it open."""
    published.publish(_write_model(tmp_path / "trained", "manifest.json"), "1_1")
    (tmp_path / "published" / "1_1" / ".nfs0001").write_text("")
    async with _fetcher(published, tmp_path / "here") as fetcher:
        await fetcher.poll()
    assert [path.name for path in (tmp_path / "here" / "1_1").iterdir()] == ["manifest.json"]


def test_a_model_is_read_once_for_all_who_ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(_write_model(tmp_path / "trained", "model.json"), tmp_path / "published", "1_1")
    model, reads, is_second = PublishedModel(tmp_path / "published"), list[str](), threading.Event()

    def crc32c_slowly(path: str) -> int:
        reads.append(path)
        if len(reads) == 2:
            is_second.set()
        is_second.wait(0.3)
        return 7

    monkeypatch.setattr("cube_transfer.model_routes.crc32c_file", crc32c_slowly)
    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(model.look) for _ in range(2)]
    assert [look.result()[0] for look in looks] == ["1_1", "1_1"]
    assert len(reads) == 1


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        (("http://", "ftp://"), "model_url"),
        (("model/current", "model/latest"), "model_data_path"),
        (("model/fluid_time_file", "model/stamp"), "reloadable_meta"),
    ],
)
def test_where_it_is_fetched_to_is_where_it_is_looked_for(
    tmp_path: Path, changed: tuple[str, str], field: str
) -> None:
    write_conf(tmp_path, [1, 2], extra='model_url: "http://127.0.0.1:1/models"')
    path = tmp_path / "model_toolkit.prototxt"
    path.write_text(path.read_text().replace(*changed))
    with pytest.raises(ConfError, match=rf"engines\[0\]\.{field}"):
        read_engine_confs(path, tmp_path / "cube.conf")
