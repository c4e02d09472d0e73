"""What the page is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cube_transfer.page.problems import Problem
from cube_transfer.page.situation import Situation
from cube_transfer.page.view import PROBLEMS_SHOWN, state_json
from cube_transfer.state import Stage
from tests.page.test_problems import record, server, situation


def told(now: Situation, problems: list[Problem], tables: Path) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(state_json(now, problems, tables))
    return answer


def test_passwords_of_addresses_are_left_out(tmp_path: Path) -> None:
    error = 'ftp://trainer:hunter2@host/base.txt: "authorization: "x"": no answer'
    failed = record("3", Stage.FAILED, step="pull", error=error)
    now = situation(records=[failed, record("2")], donefile_errors=[error])
    sent = state_json(now, [Problem("x", "bad", error, "")], tmp_path)
    assert b"no answer" in sent
    assert b"hunter2" not in sent
    assert json.loads(sent)["deployments"][0]["id"] == "3"


def test_many_problems_are_cut_short(tmp_path: Path) -> None:
    problems = [Problem(str(number), "warning", "x", "y") for number in range(200)]
    shown = told(situation(), problems, tmp_path)["problems"]
    assert len(shown) == PROBLEMS_SHOWN + 1
    assert shown[-1]["text"] == "And 180 more."


def test_versions_to_go_back_to(tmp_path: Path) -> None:
    for version in ("1_1", "2_2", "3_3", "5_5"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "build.json").write_text("{}")
    records = [
        record("5", Stage.FAILED),
        record("4", rolled_back=True),
        record("3", rolled_back=True),
        record("2"),
        record("1"),
    ]
    # 4 is not kept, 5 was never served.
    targets = told(situation(records=records), [], tmp_path)["rollback_to"]
    assert [(each["version"], each["usual"]) for each in targets] == (
        [("3_3", False), ("1_1", True)]
    )
    # While another pass is under way, also to what is served: that one is given up.
    now = situation(records=records, under_way=record("6", Stage.LOADED))
    assert [each["version"] for each in told(now, [], tmp_path)["rollback_to"]] == (
        ["3_3", "2_2", "1_1"]
    )


def test_the_summary_counts_who_serves(tmp_path: Path) -> None:
    assert told(situation(), [], tmp_path)["summary"] == "All 4 servers of 2 shards serve 2_2."
    servers = [server("cube0_0"), server("cube1_0", version="3_3")]
    now = situation(servers=servers, under_way=record("3", Stage.LOADED, step="switch"))
    assert told(now, [], tmp_path)["summary"] == (
        "1 of 2 servers of 2 shards serve 2_2. 3_3 is on its way: switch."
    )


def test_nothing_is_under_way_of_a_pass_that_was_superseded(tmp_path: Path) -> None:
    skipped = record("3", Stage.SUPERSEDED, step="pull", error="a newer pass is listed")
    deployment = told(situation(records=[skipped, record("2")]), [], tmp_path)["deployments"][0]
    assert {each["state"] for each in deployment["steps"]} <= {"done"}
    assert deployment["error"] == "a newer pass is listed"
