"""Who waits is answered, whatever happens to the turn that it is in."""

from __future__ import annotations

import asyncio

import pytest

from ctr_serving.turns import Line, Turns, WaitingCall
from cube_core.errors import LimitError, PredictionError, RpcTimeoutError


class Call(WaitingCall[str]):
    def __init__(self, name: str, *, kind: str = "", rows: int = 1, waited_s: float = 0.0) -> None:
        super().__init__(kind, rows, None)
        self.name = name
        self.queued_s -= waited_s


def names(calls: list[Call]) -> str:
    return "".join(call.name for call in calls)


def line_of(*calls: Call, rows_max: int = 10, turn_s: float = 0.0) -> Line[Call]:
    line = Line[Call](rows_max, timeout_s=5.0)
    line.turn_s = turn_s
    for call in calls:
        line.put(call)
    return line


async def test_those_of_one_kind_go_together_in_their_order() -> None:
    line = line_of(Call("a"), Call("b", rows=9), Call("c"), Call("d", kind="x"), Call("e"))
    assert [names(line.cut()) for _ in range(5)] == ["ab", "c", "d", "e", ""]
    line = line_of(Call("a"), Call("b"), rows_max=0)
    assert [names(line.cut()) for _ in range(3)] == ["a", "b", ""]


async def test_the_newest_go_first_when_the_first_has_waited_too_long() -> None:
    calls = [Call("a", waited_s=0.5), Call("b", waited_s=0.1, rows=9), Call("c")]
    line = line_of(*calls, turn_s=0.1)
    assert [names(line.cut()) for _ in range(3)] == ["cb", "a", ""]
    line = line_of(*[Call(name, waited_s=0.35, rows=9) for name in "abc"], turn_s=0.1)
    assert [names(line.cut()) for _ in range(3)] == ["a", "b", "c"]


async def test_who_waits_in_vain_is_told_before_the_others_have_their_turn() -> None:
    late, gone, hurried, kept = (
        Call("a", waited_s=6.0),
        Call("b"),
        Call("c", waited_s=0.2),
        Call("d"),
    )
    hurried.deadline_s = hurried.queued_s + 0.25
    gone.answer.cancel()
    assert names(line_of(late, gone, hurried, kept, turn_s=0.1).cut()) == "d"
    with pytest.raises(LimitError, match="queue_timeout_ms=5000"):
        await late.answer
    with pytest.raises(RpcTimeoutError, match="too little of the caller's timeout"):
        await hurried.answer
    assert not kept.answer.done()
    assert kept.waited_s < 5.0


async def test_a_turn_that_fails_fails_those_in_it_and_no_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun: asyncio.Queue[asyncio.Task[None] | None] = asyncio.Queue()

    async def turn(calls: list[Call]) -> None:
        begun.put_nowait(asyncio.current_task())
        await asyncio.sleep(0)
        if calls[0].name == "bad":
            calls[0].succeed("answered before")
            raise ZeroDivisionError("broken")
        if calls[0].name == "long":
            await asyncio.sleep(3600)
        for call in calls:
            call.succeed(call.name)

    turns = Turns(turn, under_way_max=1, rows_max=2, timeout_s=60.0)
    calls = [Call(name) for name in ("bad", "other", "long", "third", "good", "fine")]
    for call in calls:
        turns.put(call)
    assert await calls[0].answer == "answered before"
    with pytest.raises(ZeroDivisionError, match="broken"):
        await calls[1].answer
    assert "a turn of 2 failed" in caplog.text
    await begun.get()
    long = await begun.get()
    assert long is not None
    long.cancel()
    for call in calls[2:4]:
        with pytest.raises(PredictionError, match="the work was cancelled"):
            await call.answer
    assert [await call.answer for call in calls[4:]] == ["good", "fine"]
