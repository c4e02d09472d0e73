"""An event loop that stays awake for answers: for how long, and for which seeks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from cube_api._spin import AWAY_PAUSE_S, PASSED_OVER_MAX, Spin
from cube_core._native import Frame
from tests.api.conftest import clients
from tests.api.peers import PinnedInThread, conf_of, expected_rows
from tests.prpc_peer import LoopThread, Peer

TURN_S = 1e-6
SPIN_US = 100


class Turns:
    """A clock that every turn of the loop puts forward, and the turns that were spun.

    Attributes:
        turn_s: time that a turn takes.
        away_s: how long others keep the processor when they are given it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.num = 0
        self.now_s = 0.0
        self.turn_s = TURN_S
        self.away_s = 0.0
        self._loop = loop

    def sched_yield(self) -> None:
        self.num += 1
        self.now_s += self.away_s

    def monotonic(self) -> float:
        return self.now_s

    def run(self, turns: int = 1000) -> int:
        """Lets the loop turn as often, and says how many of them were spun."""
        before = self.num

        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
                self.now_s += self.turn_s

        self._loop.run_until_complete(turn())
        return self.num - before

    def spun_for(self, spin: Spin) -> int:
        """Turns for one more seek that is never answered."""
        self.on_loop(lambda: spin.add(object()))
        return self.run()

    def on_loop(self, act: Callable[[], None]) -> None:
        async def acted() -> None:
            act()

        self._loop.run_until_complete(acted())


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Turns]:
    loop = asyncio.new_event_loop()
    turns = Turns(loop)
    monkeypatch.setattr(os, "sched_yield", turns.sched_yield)
    monkeypatch.setattr(time, "monotonic", turns.monotonic)
    yield turns
    monkeypatch.undo()
    loop.close()


def test_it_ends_when_its_time_is_over(turns: Turns) -> None:
    assert turns.spun_for(Spin(SPIN_US)) == pytest.approx(SPIN_US * 1e-6 / TURN_S, abs=5)


def test_zero_is_never(turns: Turns) -> None:
    assert turns.spun_for(Spin(0)) == 0


def test_it_ends_with_the_last_answer(turns: Turns) -> None:
    spin = Spin(SPIN_US)
    turns.on_loop(lambda: spin.add("a"))
    turns.on_loop(lambda: spin.add("b"))
    turns.on_loop(lambda: spin.remove("a"))
    assert turns.run(1) > 0
    turns.on_loop(lambda: spin.remove("b"))
    assert turns.run() == 0


def test_time_that_the_loop_works_does_not_count(turns: Turns) -> None:
    turns.turn_s = 1.0
    assert turns.spun_for(Spin(SPIN_US)) > 1


def test_ever_more_are_passed_over_until_one_is_in_time(turns: Turns) -> None:
    spin = Spin(SPIN_US)
    spun = "".join("x" if turns.spun_for(spin) else "-" for _ in range(300))
    passed_over = [len(each) for each in spun.split("x")]
    assert passed_over[:8] == [0, 1, 2, 4, 8, 16, 32, PASSED_OVER_MAX]
    assert max(passed_over) == PASSED_OVER_MAX
    for number in range(PASSED_OVER_MAX + 1):
        turns.on_loop(partial(spin.add, number))
        turns.on_loop(partial(spin.remove, number))
    assert turns.spun_for(spin)


def test_it_sleeps_for_a_while_when_others_keep_the_processor(turns: Turns) -> None:
    spin = Spin(SPIN_US)
    turns.on_loop(lambda: spin.add("a"))
    turns.away_s = away_s = 3e-3
    spins_again_s = turns.now_s + away_s + AWAY_PAUSE_S
    turns.run()
    turns.away_s = 0.0
    while turns.now_s < spins_again_s - away_s:
        turns.on_loop(partial(spin.add, turns.now_s))
        assert turns.run() == 0
        turns.now_s += AWAY_PAUSE_S / 10
    turns.now_s = spins_again_s
    assert turns.spun_for(spin)


def test_a_server_that_is_slower_is_waited_for(
    client_thread: LoopThread, two_shards: list[Peer]
) -> None:
    keys = np.arange(10, dtype=np.int64)
    for peer in two_shards:
        answer = peer.answer

        def late(frame: Frame, answer: Callable[[Frame], bytes] = answer) -> bytes:
            time.sleep(PinnedInThread.spin_us * 10 / 1e6)
            return answer(frame)

        peer.answer = late
    with clients("pinned", client_thread) as new_client:
        client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
        for _ in range(20):
            found = client.seek("d", keys)
            np.testing.assert_array_equal(found.rows, expected_rows(keys.view(np.uint64), "1_1"))


@pytest.mark.parametrize("load_balancer", ["rr", "c_murmurhash"])
def test_negative_ids_stand_for_their_complement(
    client_thread: LoopThread, two_shards: list[Peer], load_balancer: str
) -> None:
    keys = np.array([-1, -2, 3], np.int64)
    conf = conf_of([[peer.endpoint] * 2 for peer in two_shards], load_balancer=load_balancer)
    with clients("pinned", client_thread) as new_client:
        assert new_client(conf).seek("d", keys).status.tolist() == [-1, -1, 0]
