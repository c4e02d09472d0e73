"""The page with a predictor, and the picture of it for the README."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ctr_serving.client import CtrClient
from ctr_serving.predictor import import_paddle
from tests.ctr.models import DENSE_DIM, EMBEDDING_DIM, SLOTS, make_model, write_manifest
from tests.ctr.service import Ctr, ctr_running, write_conf
from tests.page.browser import TIMEOUT_S, Browser
from tests.transfer.passes import DICT_NAME
from tests.transfer.site import Site
from tests.waiting import wait_until

IMAGE_VARIABLE = "CUBE_PAGE_IMAGE"
"""Path of the picture of the README, after a while of load; others are written beside it. Not set:
they are made at once, of a short past, and thrown away."""
KEY_COUNT = 40_000
ROWS = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import_paddle()
    directory = tmp_path_factory.mktemp("model") / "dense"
    make_model(directory, 1)
    return directory


@contextlib.contextmanager
def predicting(site: Site) -> Iterator[Ctr]:
    """A predictor that asks all replicas."""
    write_conf(site.root, [1], extra="cube_cache_mb: 1")
    nodes: dict[int, list[str]] = {}
    for name, server in site.servers.items():
        nodes.setdefault(site.shard_of(name), []).append(f"127.0.0.1:{server.port()}")
    shards = [{"ipport_list": f"list://{','.join(each)}"} for each in nodes.values()]
    conf = {"dict_name": DICT_NAME, "shard": len(shards), "dup": site.copy_num, "timeout": 2000}
    conf |= {"retry": 3, "type": "ipport_list", "nodes": shards}
    (site.root / "cube.conf").write_text(json.dumps([conf]))
    with ctr_running(site.root) as ctr:
        yield ctr


def announce(site: Site, model: Path, pass_id: str) -> None:
    """Writes a pass whose dense model can be predicted with."""
    line = site.trainer.write(pass_id, dim=EMBEDDING_DIM, key_count=KEY_COUNT)
    dense = site.trainer.output / pass_id / "dense"
    shutil.rmtree(dense)
    shutil.copytree(model, dense)
    write_manifest(dense, f"{pass_id}_{pass_id}")
    site.trainer.announce(line)
    wait_until(lambda: site.stage(pass_id) == "done", TIMEOUT_S, f"pass {pass_id}")


def load(client: CtrClient, random: np.random.Generator) -> Callable[[], None]:
    """Asks for predictions of ids of which some have no row, all of slot 7."""

    def ask() -> None:
        ids = random.integers(0, KEY_COUNT + KEY_COUNT // 50, (ROWS, SLOTS))
        ids[:, 7] = KEY_COUNT + 1
        client.predict(ids.astype(np.int64), random.random((ROWS, DENSE_DIM), np.float32))

    return ask


def cell(browser: Browser, name: str) -> str:
    return browser.text(f"#ctr tbody [data-name='{name}']")


def test_a_predictor(browser: Browser, site: Site, model: Path, tmp_path: Path) -> None:
    with (
        predicting(site) as ctr,
        ctr.client() as client,
        site.transfer("--sample_interval_s=1", ctr_servers=ctr.address, keep_versions=3),
    ):
        for pass_id in ("1", "2", "3"):
            announce(site, model, pass_id)
        wait_until(lambda: ctr.model_version() == "3_3", TIMEOUT_S, "3_3 at the predictor")
        ask = load(client, np.random.default_rng(1))
        browser.open(site.url())
        browser.await_text("Nothing is wrong.", "#problems")

        def shown() -> bool:
            for _ in range(5):
                ask()
            return "slot 7, 100" in cell(browser, "Missing of 100 rows, by slot") and (
                "%" in cell(browser, "Cache hits")
            )

        wait_until(shown, TIMEOUT_S, "figures of the predictor")
        assert cell(browser, "State") == "serves"
        assert cell(browser, "Dense part") == "3_3"
        assert cell(browser, "Sparse part") == "3_3, 2 of 2 shards"
        assert cell(browser, "Failed") == "0 %"
        for name in ("Queue p50 / p99", "Seek p50 / p99", "Infer p50 / p99"):
            assert "ms" in cell(browser, name) or "µs" in cell(browser, name)
        browser.await_text("CTR rows a second", "#charts")
        browser.require_no_sideways_scrolling()
        if os.environ.get(IMAGE_VARIABLE):
            save_images(browser, site, ask, Path(os.environ[IMAGE_VARIABLE]), past=500)
        else:
            save_images(browser, site, ask, tmp_path / "page.png", past=1)
            require_pictures(tmp_path)
        ctr.role.stop()
        browser.await_text(f"CTR server {ctr.address} does not answer", "#problems")
        assert cell(browser, "State") == "down"
        assert browser.complaints() == []


def require_pictures(folder: Path) -> None:
    """Each is a PNG of its width, and has more than one colour."""
    widths = {}
    for path in folder.glob("page*.png"):
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        widths[path.stem.removeprefix("page")] = int.from_bytes(data[16:20], "big")
        assert len(data) > 20_000, f"{path.name} shows nothing"
    small = {"-phone": 375, "-wrong-phone": 375}
    assert widths == {"": 1280, "-dark": 1280, "-ask": 1280, "-wrong": 1280, **small}


def save_images(
    browser: Browser, site: Site, ask: Callable[[], None], path: Path, *, past: int
) -> None:
    """Of the page after a minute of load and a pass that failed, in light, dark and small.

    Args:
        past: how long the line of a chart is to be, in characters.
    """
    random = np.random.default_rng(2)

    def points() -> int:
        for _ in range(int(random.integers(10, 40))):
            ask()
        status: int = browser.driver.execute_script(
            "return (document.querySelector('#charts path.line')?.getAttribute('d') ?? '').length"
        )
        return status

    wait_until(lambda: points() > past, 240, "a chart with a past")
    browser.save_image(path, width=1280)
    browser.save_image(path.with_stem(f"{path.stem}-dark"), width=1280, dark=True)
    browser.save_image(path.with_stem(f"{path.stem}-phone"), width=375)
    site.servers["cube0_1"].stop()
    site.trainer.announce(site.trainer.line("4"))
    browser.look(width=1280, height=900)
    browser.await_text("Pass 4 (4_4) failed", "#problems")
    browser.await_text("cube0_1", "#problems")
    browser.click("#rollback")
    browser.save_image(path.with_stem(f"{path.stem}-ask"), width=1280)
    browser.click("#ask-no")
    browser.save_image(path.with_stem(f"{path.stem}-wrong"), width=1280)
    browser.save_image(path.with_stem(f"{path.stem}-wrong-phone"), width=375, dark=True)
