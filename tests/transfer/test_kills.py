"""`kill -9` at random points of deployments: a pass is served whole or not at all, and no wedge.

`CUBE_KILLS=200` asks for a campaign, `CUBE_KILLS_SEED` for another one of the same length.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from tests.transfer.passes import rows_of
from tests.transfer.site import Site
from tests.waiting import wait_until

KILLS = int(os.environ.get("CUBE_KILLS", "6"))
SEED = int(os.environ.get("CUBE_KILLS_SEED", "1"))
KEY_COUNT = 30_000
KEYS_CHECKED = 500
DAEMON = "cube-transfer"
BUILDER = "cube-builder"


class Campaign:
    """One pass after another, each with one or more processes killed while it is deployed."""

    def __init__(self, site: Site, stack: contextlib.ExitStack) -> None:
        self.site = site
        self.random = random.Random(SEED)
        self.killed: dict[str, int] = {}
        self._stack = stack
        self._deployment_s = 1.0
        self._start_daemon()

    def deploy(self, pass_id: str) -> None:
        """Without any kill."""
        started = time.monotonic()
        self._announce(pass_id)
        self.site.await_stage(pass_id, "done")
        self._deployment_s = time.monotonic() - started
        self._require_served(pass_id)

    def deploy_killing(self, pass_id: str, before: str) -> int:
        """Returns how many processes it killed on the way from pass `before`."""
        self._announce(pass_id)
        kills = 0
        while kills == 0 or self.random.random() < 0.3:
            self._wait_s(self.random.uniform(0, self._deployment_s))
            self._kill(self.random.choice([DAEMON, BUILDER, *self.site.servers]), pass_id, before)
            kills += 1
        self.site.await_stage(pass_id, "done")
        self._require_served(pass_id)
        # The trainer's directory is not needed any more, and is as large as all others.
        shutil.rmtree(self.site.trainer.output / before)
        return kills

    def _announce(self, pass_id: str) -> None:
        trainer = self.site.trainer
        trainer.announce(trainer.write(pass_id, key_count=KEY_COUNT))

    def _kill(self, victim: str, pass_id: str, before: str) -> None:
        builder = _children(self.site.daemon_pid()) if victim == BUILDER else []
        if victim == BUILDER and not builder:
            victim = DAEMON
        self.killed[victim] = self.killed.get(victim, 0) + 1
        if victim == BUILDER:
            os.kill(builder[0], signal.SIGKILL)
        elif victim == DAEMON:
            assert self.site.daemon is not None
            self.site.daemon.stop(signal.SIGKILL)
        else:
            self.site.servers[victim].stop(signal.SIGKILL)
        for name in self.site.servers:
            if name != victim:
                self._require_whole(name, {pass_id, before})
        if victim == DAEMON:
            self._start_daemon()
        elif victim != BUILDER:
            self.site.start_server(victim)
            self._require_whole(victim, {pass_id, before})

    def _start_daemon(self) -> None:
        self._stack.enter_context(self.site.transfer())

    def _require_whole(self, name: str, pass_ids: set[str]) -> None:
        """The server answers from one of the passes, with its rows and no others."""
        shard = int(name.removeprefix("cube").split("_")[0])
        keys = np.arange(shard, KEYS_CHECKED, self.site.shard_num, dtype=np.uint64)
        version, rows = self.site.seek(name, keys)
        pass_id = version.split("_")[0]
        assert pass_id in pass_ids, (name, version)
        assert rows == rows_of(pass_id, keys).tobytes()

    def _require_served(self, pass_id: str) -> None:
        site = self.site
        site.require_served(pass_id, KEYS_CHECKED)
        assert site.published() == f"{pass_id}_{pass_id}"
        site.require_tidy()
        assert [str(path) for path in (site.root / "data").rglob(".*")] == []

    def _wait_s(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until, seconds + 10)


@pytest.mark.timeout(120 + 20 * KILLS)
def test_a_pass_is_served_whole_or_not_at_all_whoever_is_killed(site: Site) -> None:
    with contextlib.ExitStack() as stack:
        campaign = Campaign(site, stack)
        campaign.deploy("1")
        campaign.deploy("2")
        kills, number = 0, 2
        while kills < KILLS:
            number += 1
            kills += campaign.deploy_killing(str(number), str(number - 1))
        print(f"seed {SEED}: {kills} kills in {number - 2} passes: {campaign.killed}")
        assert sum(campaign.killed.values()) == kills >= KILLS


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    return []
