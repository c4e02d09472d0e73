"""What is wrong, in words, of situations that are made up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cube_transfer.page.problems import Noticed, Problem, problems_of
from cube_transfer.page.readings import Rates
from cube_transfer.page.situation import CtrNow, ServerNow, Situation
from cube_transfer.state import PassRecord, Stage

NOW_S = 10_000.0


def server(name: str, version: str | None = "2_2", **changes: Any) -> ServerNow:
    shard = int(name[4])
    known = ServerNow(name, f"h:{8000 + shard}", shard, version, ["2_2", "1_1"], "", "", None)
    return replace(known, **changes)


def record(pass_id: str, stage: Stage = Stage.DONE, **changes: Any) -> PassRecord:
    times = {"noticed": 100.0, "switched": 200.0, "published": 201.0, "failed": 300.0}
    order = changes.pop("order", int(pass_id))
    return PassRecord(
        id=pass_id,
        key=pass_id,
        version=changes.pop("version", f"{pass_id}_{pass_id}"),
        input="i",
        dense="d",
        fields={},
        order=order,
        stage=stage,
        reached_at_s=times,
        **changes,
    )


def situation(**changes: Any) -> Situation:
    healthy = Situation(
        at_s=NOW_S,
        dict_name="d",
        wanted="2_2",
        paused=False,
        under_way=None,
        error="",
        records=[record("2"), record("1")],
        donefile_errors=[],
        awaited="",
        bad_lines=[],
        reconcile_error="",
        servers=[server(name) for name in ("cube0_0", "cube0_1", "cube1_0", "cube1_1")],
        ctr_servers=[],
    )
    return replace(healthy, **changes)


def only(now: Situation) -> Problem:
    (problem,) = problems_of(now)
    return problem


def test_nothing_is_wrong() -> None:
    assert problems_of(situation()) == []
    assert problems_of(situation(ctr_servers=[CtrNow("c", "2_2", "", None)])) == []


def test_a_replica_is_down() -> None:
    down = server("cube0_1", down="connection refused.", since_s=9_000.0)
    problem = only(situation(servers=[server("cube0_0"), down, server("cube1_0")]))
    assert problem.level == "warning"
    assert problem.text == "cube0_1 (h:8000), of shard 0, does not answer: connection refused."
    assert problem.advice.startswith("cube0_0 answers for the shard. Start it")
    assert problem.since_s == 9_000.0


def test_a_shard_is_down() -> None:
    servers = [
        server("cube0_0", down="refused", since_s=8_000.0),
        server("cube0_1", down="no answer", since_s=9_000.0),
        server("cube1_0"),
    ]
    problem = only(situation(servers=servers))
    assert problem.level == "bad"
    assert problem.text == (
        "Shard 0 is down: all 2 servers do not answer (cube0_0 (h:8000): refused; "
        "cube0_1 (h:8000): no answer)."
    )
    # The shard is down since the last of its servers is.
    assert problem.since_s == 9_000.0
    alone = only(situation(servers=[server("cube0_0", down="refused"), server("cube1_0")]))
    assert "its only server does not answer" in alone.text


def test_a_replica_is_behind_unless_it_is_being_switched() -> None:
    servers = [server("cube0_0"), server("cube1_0", version="3_3")]
    assert (
        "cube1_0 (h:8001), of shard 1, serves 3_3 and not 2_2"
        in only(situation(servers=servers)).text
    )
    under_way = record("3", Stage.LOADED, step="switch")
    assert problems_of(situation(servers=servers, under_way=under_way)) == []
    empty = situation(servers=[server("cube0_0", version="")])
    assert "serves nothing and not 2_2" in only(empty).text
    # A server that was not asked yet is not told of.
    assert problems_of(situation(servers=[server("cube0_0", version=None)])) == []


def test_a_replica_refuses() -> None:
    refuses = server("cube0_0", refuses="cube0_0 (h:8000): download: disk full.", since_s=1.0)
    problem = only(situation(servers=[refuses]))
    assert problem.text == (
        "cube0_0 (h:8000), of shard 0, does not do what it is told: download: disk full."
    )


def test_a_replica_answers_errors() -> None:
    def asked(errors: float) -> Situation:
        rates = Rates({"requests": 100.0, "errors": errors})
        return situation(servers=[server("cube0_0", rates=rates)])

    assert "answers some requests with an error" in only(asked(2.0)).text
    assert problems_of(asked(0.5)) == []


def test_a_pass_failed_until_a_newer_one_is_served() -> None:
    failed = record("3", Stage.FAILED, step="build", error="no such file")
    problem = only(situation(records=[failed, record("2")]))
    assert problem.text == "Pass 3 (3_3) failed in the step “build”: no such file."
    assert (problem.level, problem.since_s, problem.action) == ("bad", 300.0, "retry 3")
    assert "2_2 is served" in problem.advice
    assert problems_of(situation(records=[record("4"), failed, record("2")])) == []
    back = record("9", Stage.LOADED, kind="rollback", version="1_1")
    assert problems_of(situation(records=[back, failed], under_way=back)) == []
    rollback = record("9", Stage.FAILED, kind="rollback", version="1_1", error="x", step="load")
    problem = only(situation(records=[rollback]))
    assert (problem.text[:24], problem.action) == ("The rollback to 1_1 fail", "")


def test_a_pass_does_not_get_on() -> None:
    under_way = record("3", Stage.BUILT, step="ship")
    problem = only(situation(under_way=under_way, error="no replica of shard 1 gets on"))
    assert problem.text.startswith("Pass 3 (3_3) does not get on with the step “ship”: no replica")
    assert problem.action == "retry 3"


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({"donefile_errors": ["http://x: 500"]}, "bad", "cannot be read: http://x: 500."),
        ({"bad_lines": ["b.txt:1: x", "b.txt:2"]}, "warning", "b.txt:1: x. And 1 more."),
        ({"paused": True}, "note", "Deployments are paused"),
        ({"reconcile_error": "gone"}, "warning", "Servers that lose 2_2 cannot get it back: gone."),
    ],
)  # fmt: skip
def test_other_things(changes: dict[str, Any], level: str, words: str) -> None:
    problem = only(situation(**changes))
    assert problem.level == level
    assert words in problem.text


def test_both_donefiles_of_a_server_are_two_problems() -> None:
    errors = [f"http://trainer:80/out/{name}.txt: HTTP 500" for name in ("base", "patch")]
    keys = [each.key for each in problems_of(situation(donefile_errors=errors))]
    # The page would add a line anew at each look, and never take it away.
    assert len({*keys}) == 2


def test_before_the_first_pass() -> None:
    servers = [server("cube0_0", version="", loaded=[])]
    now = situation(wanted="", records=[], servers=servers, awaited="b.txt: no such file yet")
    problem = only(now)
    assert problem.level == "note"
    assert problem.text == "No pass has been deployed yet (b.txt: no such file yet)."


@pytest.mark.parametrize(
    ("ctr", "level", "words"),
    [
        ({"down": "refused"}, "bad", "CTR server c does not answer: refused."),
        ({"version": ""}, "bad", "has no model and predicts nothing."),
        ({"version": "1_1", "problem": "bad model."}, "warning", "1_1 and not 2_2. bad model."),
        ({"rates": Rates({"requests": 10.0, "failed": 0.5})}, "bad", "cannot answer some"),
    ],
)
def test_ctr_servers(ctr: dict[str, Any], level: str, words: str) -> None:
    known = {"name": "c", "version": "2_2", "down": "", "since_s": None, **ctr}
    problem = only(situation(ctr_servers=[CtrNow(**known)]))
    assert problem.level == level
    assert words in problem.text


def test_a_ctr_server_has_time_to_take_a_model() -> None:
    behind = CtrNow("c", "1_1", "", None)
    published_s = record("2").reached_at_s["published"]
    assert problems_of(situation(ctr_servers=[behind], at_s=published_s + 30)) == []
    assert "predicts with 1_1" in only(situation(ctr_servers=[behind], at_s=published_s + 61)).text
    assert problems_of(situation(ctr_servers=[behind], publishes=False)) == []


def test_a_ctr_server_needs_what_a_shard_dropped() -> None:
    servers = [server("cube0_0"), server("cube1_0", loaded=["2_2"])]
    now = situation(servers=servers, ctr_servers=[CtrNow("c", "1_1", "", None)], publishes=False)
    assert "needs 1_1, which not every shard holds" in only(now).text


def test_the_worst_comes_first_and_times_stay() -> None:
    paused = situation(paused=True, donefile_errors=["x: 500"])
    assert [each.level for each in problems_of(paused)] == ["bad", "note"]
    noticed = Noticed()
    assert [each.since_s for each in noticed.dated(problems_of(paused), 5.0)] == [5.0, 5.0]
    assert [each.since_s for each in noticed.dated(problems_of(paused), 9.0)] == [5.0, 5.0]
    noticed.dated([], 10.0)
    assert [each.since_s for each in noticed.dated(problems_of(paused), 11.0)] == [11.0, 11.0]
