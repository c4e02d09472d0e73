"""Patches that come faster than predictors look: whoever pins a published version is answered."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np

from cube_api import CubeClient
from cube_core.errors import CubeError
from tests.transfer.passes import DICT_NAME, Patch, base_content, rows_in
from tests.transfer.site import Site
from tests.waiting import wait_until

PATCHES = 20
LOOK_INTERVAL_S = 0.5
LOAD_S = 2.0
KEYS = range(200)


class Predictor(threading.Thread):
    """Pins versions as a predictor does: looks for another model every half second, takes a while
    to load it, and asks for that model's version until it has the next one."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.failures: list[str] = []
        self.answered: dict[str, list[bytes | None]] = {}
        """The rows of each version that was asked for."""
        self.stopping = threading.Event()
        self._conf = _write_cube_conf(site)
        self._model = site.model
        self._announced = site.model / "fluid_time_file"
        self._pinned = self._announced.read_text().strip()
        self._next = ""
        self._look_at_s = self._loaded_at_s = 0.0

    def run(self) -> None:
        keys = np.array(KEYS, np.uint64)
        with CubeClient(self._conf) as client:
            while not self.stopping.is_set():
                self._look()
                try:
                    result = client.seek(DICT_NAME, keys, version=self._pinned)
                except CubeError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")
                    continue
                assert result.version == self._pinned
                rows, status = result
                self.answered[self._pinned] = [
                    None if missing else row.tobytes()
                    for row, missing in zip(rows, status, strict=True)
                ]

    def _look(self) -> None:
        now_s = time.monotonic()
        if self._next and now_s >= self._loaded_at_s:
            if not (self._model / self._next / "model.pdiparams").is_file():
                self.failures.append(f"{self._next}: removed while it was loaded")
            self._pinned, self._next = self._next, ""
        if now_s < self._look_at_s:
            return
        self._look_at_s = now_s + LOOK_INTERVAL_S
        announced = self._announced.read_text().strip()
        if announced != self._pinned and not self._next:
            self._next, self._loaded_at_s = announced, now_s + LOAD_S


def _write_cube_conf(site: Site) -> Path:
    nodes = [{"ip": "127.0.0.1", "port": role.port()} for role in site.servers.values()]
    conf = {"dict_name": DICT_NAME, "shard": len(nodes), "dup": 1, "timeout": 5000, "retry": 3}
    path = site.root / "cube.conf"
    path.write_text(json.dumps([{**conf, "type": "ipport", "nodes": nodes}]))
    return path


def test_a_run_of_patches_leaves_no_predictor_behind(site: Site) -> None:
    trainer, content = site.trainer, base_content("10")
    patches = [
        Patch("10", str(11 + number), sets=range(number, 60, 7), deletes=[100 + number])
        for number in range(PATCHES)
    ]
    contents = {"10_10": content}
    for patch in patches:
        contents[patch.version] = content = patch.over(content)
    with site.transfer(mode="base_delta"):
        trainer.announce(trainer.write("10"))
        site.await_stage("10", "done")
        predictor = Predictor(site)
        predictor.start()
        try:
            trainer.announce_patches(*map(trainer.write_patch, patches))
            last = patches[-1].version
            wait_until(lambda: last in predictor.answered or not predictor.is_alive(), 60, last)
        finally:
            predictor.stopping.set()
            predictor.join()
        assert predictor.failures == []
        newest = {patch.version for patch in patches[-2:]}
        wait_until(lambda: {path.name for path in site.model.glob("10_*")} == newest, 40)
    assert "10_10" in predictor.answered
    for version, rows in predictor.answered.items():
        assert rows == rows_in(contents[version], KEYS), version
