"""Load in a closed and an open loop."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cube_api.cli.bench import Bench
from cube_core.endpoint import Endpoint
from tests.api.peers import answer_from, conf_of, new_seeker, write_shard
from tests.cli.conftest import Done, cli, write_conf
from tests.prpc_peer import LoopThread, Peer
from tests.waiting import wait_until


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    thread = LoopThread()
    peer = Peer(thread, answer_from(new_seeker(write_shard(tmp_path, 0, 1, "1_1"))))
    yield peer
    peer.stop()
    thread.close()


def figures(done: Done) -> dict[str, int]:
    assert done.code == 0, done.stdout + done.stderr
    names = re.findall(r"(mean|p[\d.]+|max) (\d+)", done.stdout)
    counts = re.findall(r"(\d+) (requests|qps|keys)", done.stdout)
    found = {name: int(number) for name, number in names}
    return {**found, **{name: int(number) for number, name in counts}}


def test_a_closed_loop_sends_as_answers_come(conf: Path) -> None:
    done = cli(
        "bench", f"--config_file={conf}", "--concurrency=2", "--duration_s=1", "--batch=26",
        "--key_space=2000",
    )  # fmt: skip
    seen = figures(done)
    assert "closed loop, 2 threads, 26 keys a request, uniform keys" in done.stdout
    assert seen["requests"] > 100
    assert abs(seen["qps"] - seen["requests"]) < 0.5 * seen["requests"]
    assert seen["p50"] <= seen["p99"] <= seen["max"]
    assert "100.00% found" in done.stdout


def test_an_open_loop_keeps_its_rate(conf: Path) -> None:
    done = cli(
        "bench", f"--config_file={conf}", "--rate=200", "--duration_s=1", "--batch=10",
        "--distribution=zipf", "--key_space=4000",
    )  # fmt: skip
    seen = figures(done)
    assert "open loop at 200 a second" in done.stdout
    assert seen["requests"] == 200
    share = re.search(r"([\d.]+)% found", done.stdout)
    # Keys 0 to 1999 of 4000 are there: most of what Zipf asks for, but not all.
    assert share is not None
    assert 80 < float(share[1]) < 100


@pytest.mark.parametrize(("rate", "is_open"), [(100.0, True), (None, False)])
def test_a_stall_is_charged_to_every_seek_it_held_up(
    peer: Peer, rate: float | None, is_open: bool
) -> None:
    """One thread and a server that does not answer for a while: a closed loop has one slow seek
    for it, an open loop all that were to be sent meanwhile."""
    conf = conf_of([[peer.endpoint]])["d"]
    batches = np.arange(4, dtype=np.uint64).reshape(1, 4)
    stalled = threading.Thread(target=stall, args=(peer,))
    stalled.start()
    result = Bench(conf, batches, concurrency=1, rate=rate, duration_s=1.0).run()
    stalled.join()
    assert result.failed == 0
    assert result.max_us > 300_000
    if is_open:
        assert result.requests == 100
        assert result.percentiles_us[90.0] > 150_000
    else:
        assert result.requests > 100
        assert result.percentiles_us[90.0] < 150_000


def stall(peer: Peer) -> None:
    """Holds back answers for 0.4 s once the load has begun."""
    wait_until(lambda: peer.requests_num > 10, 10, "load")
    peer.hold = True
    wait_until(lambda: peer.held_num > 0, 10, "a seek that is held back")
    threading.Event().wait(0.4)
    peer.release()


def test_servers_that_cannot_be_reached_end_it_at_once(tmp_path: Path) -> None:
    conf = write_conf(tmp_path / "cube.conf", [[Endpoint("127.0.0.1", 1)]])
    done = cli("bench", f"--config_file={conf}", "--duration_s=60", timeout_s=30)
    assert done.code == 2
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert "127.0.0.1:1" in error
