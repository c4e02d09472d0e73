"""`kill -9` at random points of deployments: a pass is served whole or not at all, and no wedge.

`make kills KILLS=200 SEED=7` runs a campaign, and prints in which steps the kills hit.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_transfer.build import ATTEMPTS_MAX
from tests.transfer.passes import Content, Patch, base_content, rows_in
from tests.transfer.site import Site
from tests.waiting import wait_until

KILLS = int(os.environ.get("CUBE_KILLS", "6"))
SEED = int(os.environ.get("CUBE_KILLS_SEED", "1"))
KEY_COUNT = 30_000
KEYS_CHECKED = 500
PATCH_SHARE = 0.6
STEPS = ("pull", "build", "ship", "load", "switch", "publish", "tidy", "between")
DAEMON = "cube-transfer"
BUILDER = "cube-builder"


class Campaign:
    """One base or patch after another, each with processes killed while it is deployed."""

    def __init__(self, site: Site, stack: contextlib.ExitStack) -> None:
        self.site = site
        self.random = random.Random(SEED)
        self.killed: Counter[tuple[str, str, str]] = Counter()
        """By the step, who was killed, and what was deployed: a base or a patch."""
        self.passes: Counter[str] = Counter()
        self._stack = stack
        self._number = 0
        self._base = ""
        self._serves: tuple[str, Content] = ("", {})
        self._next: tuple[str, Content] = ("", {})
        self._took_s = {"base": 1.0, "patch": 0.5}
        self._start_daemon()

    def deploy(self, kind: str) -> None:
        """Without any kill."""
        started = time.monotonic()
        pass_id = self._announce(kind)
        self.site.await_stage(pass_id, "done")
        self._took_s[kind] = time.monotonic() - started
        self._require_served()

    def deploy_killing(self) -> None:
        """A base or a patch, with one or more kills on the way."""
        kind = "patch" if self.random.random() < PATCH_SHARE else "base"
        pass_id = self._announce(kind)
        victims = [DAEMON, DAEMON, BUILDER, BUILDER, *self.site.servers]
        kills_of: Counter[str] = Counter()
        while not kills_of or self.random.random() < 0.3:
            victim = self.random.choice(victims)
            kills_of[victim] += 1
            if kills_of[BUILDER] == ATTEMPTS_MAX:
                # The daemon takes it then that the machine cannot build the pass.
                break
            if victim == BUILDER:
                self._await_build()
            longest_s = self._took_s[kind] / (2 if victim == BUILDER else 1)
            self._wait_s(self.random.uniform(0, longest_s))
            self._kill(victim, kind)
        wait_until(lambda: self.site.stage(pass_id) == "done", 40, f"{pass_id} done, seed {SEED}")
        self._require_served()

    def histogram(self) -> Iterator[str]:
        """Lines: what was deployed, and how many were killed in each step."""
        passes = f"{self.passes['base']} bases and {self.passes['patch']} patches"
        copies = self.site.copy_num
        yield f"seed {SEED}, replicas a shard {copies}: {self.killed.total()} kills in {passes}"
        for step in STEPS:
            hit = {who: n for who, n in self.killed.items() if who[0] == step}
            whom = ", ".join(f"{n} {role} ({kind})" for (_, role, kind), n in sorted(hit.items()))
            yield f"{step:8}{sum(hit.values()):5} {'#' * sum(hit.values())}  {whom}"

    def _announce(self, kind: str) -> str:
        """Returns the id of its record."""
        trainer = self.site.trainer
        self._number += 1
        number = str(self._number)
        self.passes[kind] += 1
        if kind == "base":
            if self._base:
                # The trainer's directory is not needed any more, and is as large as all others.
                shutil.rmtree(trainer.output / self._base)
            trainer.announce(trainer.write(number, key_count=KEY_COUNT))
            self._base = number
            self._next = (f"{number}_{number}", base_content(number, KEYS_CHECKED))
            return number
        keys = self.random.sample(range(KEYS_CHECKED), 60)
        patch = Patch(self._base, number, sets=keys[:40], deletes=keys[40:])
        trainer.announce_patches(trainer.write_patch(patch))
        self._next = (patch.version, patch.over(self._serves[1]))
        return patch.version

    def _kill(self, victim: str, kind: str) -> None:
        step = (self.site.status()["deploying"] or {}).get("step") or "between"
        builders = _children(self.site.daemon_pid())
        if victim == BUILDER and not builders:
            victim = DAEMON
        if victim == BUILDER:
            try:
                os.kill(builders[0], signal.SIGKILL)
            except ProcessLookupError:
                # It has just ended.
                return
        elif victim == DAEMON:
            assert self.site.daemon is not None
            self.site.daemon.stop(signal.SIGKILL)
        else:
            self.site.servers[victim].stop(signal.SIGKILL)
        role = "cube-server" if victim in self.site.servers else victim
        self.killed[step, role, kind] += 1
        for name in self.site.servers:
            if name != victim:
                self._require_whole(name)
        if victim == DAEMON:
            self._start_daemon()
        elif victim != BUILDER:
            self.site.start_server(victim)
            self._require_whole(victim)

    def _start_daemon(self) -> None:
        self._stack.enter_context(self.site.transfer(mode="base_delta"))

    def _require_whole(self, name: str) -> None:
        """The server answers from what was served before, or from what is deployed, with its rows
        and no others."""
        keys = range(self.site.shard_of(name), KEYS_CHECKED, self.site.shard_num)
        version, rows = self.site.seek(name, keys)
        contents = dict([self._serves, self._next])
        assert version in contents, (name, version, SEED)
        assert rows == rows_in(contents[version], keys), (name, version, SEED)

    def _require_served(self) -> None:
        site = self.site
        self._serves = self._next
        for name in site.servers:
            self._require_whole(name)
        assert site.published() == self._serves[0]
        site.require_tidy()
        assert [str(path) for path in (site.root / "data").rglob(".*")] == []

    def _await_build(self) -> None:
        """Returns when the build is under way, or over."""

        def begun() -> bool:
            step = (self.site.status()["deploying"] or {}).get("step", "tidy")
            return step not in ("", "pull")

        wait_until(begun)

    def _wait_s(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        wait_until(lambda: time.monotonic() >= until, seconds + 10)


@pytest.mark.timeout(120 + 20 * KILLS)
@pytest.mark.parametrize("sites", ["site", "replicated_site"])
def test_a_pass_is_served_whole_or_not_at_all_whoever_is_killed(
    sites: str, request: pytest.FixtureRequest
) -> None:
    site: Site = request.getfixturevalue(sites)
    with contextlib.ExitStack() as stack:
        campaign = Campaign(site, stack)
        try:
            for kind in ("base", "base", "patch"):
                campaign.deploy(kind)
            while campaign.killed.total() < KILLS:
                campaign.deploy_killing()
        finally:
            print("", *campaign.histogram(), sep="\n")


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
        return [int(child) for child in text.split()]
    return []
