"""A daemon that is killed goes on where it was; one that is told to stop does so at once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.transfer.http_directory import http_directory
from tests.transfer.site import Site
from tests.waiting import wait_until

STOP_TIMEOUT_S = 5.0


def test_a_daemon_killed_in_every_step_finishes_the_pass(site: Site) -> None:
    trainer = site.trainer
    with http_directory(trainer.output) as source:
        address = f"{source.url}/donefile"

        def kill_in_step(step: str, prepare: Callable[[], None], undo: Callable[[], None]) -> None:
            with site.transfer(donefile_address=address) as daemon:
                prepare()
                site.await_step("2", step)
                children = _children(daemon.process.pid)
                daemon.stop(signal.SIGKILL)
            # No builder goes on without its daemon.
            wait_until(lambda: not any(_runs(pid) for pid in children))
            undo()
            site.require_served("1")
            assert site.published() == "1_1"

        with site.transfer(donefile_address=address):
            trainer.announce(trainer.write("1"))
            site.await_stage("1", "done")

        # Large enough that the build is still going on when it is seen.
        trainer.announce(trainer.write("2", key_count=400_000))
        part = "2/embedding/part-00001"
        source.hold(part)
        kill_in_step("pull", lambda: None, lambda: source.release(part))
        kill_in_step("build", lambda: None, lambda: None)
        held, other = site.proxies["cube1_0"], site.proxies["cube0_0"]
        for step, cmd in (("ship", "download"), ("load", "bg_load_base")):
            held.hold(cmd)
            kill_in_step(step, lambda: None, lambda cmd=cmd: held.release(cmd))  # type: ignore[misc]

        held.hold("bg_switch")
        with site.transfer(donefile_address=address) as daemon:
            site.await_step("2", "switch")
            daemon.stop(signal.SIGKILL)
        held.release("bg_switch")
        assert site.published() == "1_1"

        pulled_before = source.requests.count("/2/embedding/part-00000")
        built_before = (site.output / "2_2" / "build.json").stat().st_mtime_ns
        with site.transfer(donefile_address=address):
            site.await_stage("2", "done")
            site.require_served("2", key_count=3000)
        site.require_tidy()
        assert site.published() == "2_2"
        # What was done before the kill is not done again.
        assert source.requests.count("/2/embedding/part-00000") == pulled_before
        assert (site.output / "2_2" / "build.json").stat().st_mtime_ns == built_before
        assert other.commands.count("download") <= 4


def test_sigterm_stops_at_once_in_a_build_and_in_a_download(site: Site) -> None:
    trainer, proxy = site.trainer, site.proxies["cube0_0"]
    trainer.announce(trainer.write("1", key_count=400_000))
    with site.transfer() as daemon:
        site.await_step("1", "build")
        assert _seconds_to_stop(daemon.stop) < STOP_TIMEOUT_S
        assert daemon.process.returncode == 0
        assert "Traceback" not in daemon.log()
    assert list(site.output.iterdir()) == []

    proxy.hold("download")
    with site.transfer() as daemon:
        site.await_step("1", "ship")
        assert _seconds_to_stop(daemon.stop) < STOP_TIMEOUT_S
        assert daemon.process.returncode == 0
        assert "Traceback" not in daemon.log()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"


def _seconds_to_stop(stop: Callable[[], int]) -> float:
    started = time.monotonic()
    stop()
    return time.monotonic() - started
