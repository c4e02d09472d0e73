"""What an operator tells a running daemon, by command line and HTTP."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

from cube_core import command_line
from cube_transfer import commands
from cube_transfer.main import app
from tests.transfer.site import Site
from tests.waiting import wait_until


def _command(site: Site, *arguments: str, code: int = 0, url: str = "") -> str:
    """What the command prints when it ends with `code`."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        command_line.run(app, [*arguments, f"--url={url or site.url()}"])
    assert ended.value.code == code, err.getvalue()
    return out.getvalue() if code == 0 else err.getvalue()


def _get(site: Site, path: str) -> Any:
    answer = site.http.get(site.url() + path).raise_for_status().json()
    assert set(answer) == {"success", "message", "data"}
    return answer["data"] if answer["success"] == "0" else answer["message"]


def _deploy(site: Site, *pass_ids: str) -> None:
    for pass_id in pass_ids:
        site.trainer.announce(site.trainer.write(pass_id))
        site.await_stage(pass_id, "done")


def test_rollbacks_take_tables_and_model_back(site: Site) -> None:
    with site.transfer(keep_versions=3):
        assert "nothing is served" in _command(site, "rollback", code=2)
        _deploy(site, "1", "2", "3")
        assert "2_2 is served after" in _command(site, "rollback")
        site.require_served("2")
        assert site.published() == "2_2"
        assert site.status()["serving"] == "2_2"
        history = json.loads(_command(site, "history", "--json"))
        assert [(each["id"], each["stage"]) for each in history[:2]] == [
            ("rollback:4", "done"),
            ("3", "done"),
        ]
        assert history[1]["rolled_back"]

        # From there one further back, not to the pass that was rolled back from.
        _command(site, "rollback")
        site.require_served("1")
        assert site.published() == "1_1"
        assert "no version was served before 1_1" in _command(site, "rollback", code=2)
        assert "9_9 was never served; these were: 3_3, 2_2, 1_1" in _command(
            site, "rollback", "9", code=2
        )
        _command(site, "rollback", "3_3")
        site.require_served("3")
        site.require_tidy()
        _command(site, "rollback", "2")

    # A restart does not deploy again what was rolled back from; a newer pass is taken.
    with site.transfer(keep_versions=3):
        wait_until(lambda: site.status()["replicas"]["cube1_0"]["ready"])
        site.require_served("2")
        _deploy(site, "4")
        site.require_served("4")
        assert "2_2 is served" in _command(site, "rollback")


def test_a_rollback_gives_up_the_pass_under_way(site: Site) -> None:
    with site.transfer():
        _deploy(site, "1", "2")
        held = site.proxies["cube1_0"]
        held.hold("bg_switch")
        site.trainer.announce(site.trainer.write("3"))
        wait_until(lambda: site.command("cube0_0", "status")["cur_version"] == "3_3")
        # The servers are switching, so what was served before is 2_2.
        _command(site, "rollback", "--wait_s=0")
        held.release("bg_switch")
        wait_until(lambda: site.stage("rollback:4") == "done")
        site.require_served("2")
        assert site.published() == "2_2"
        assert site.stage("3") == "failed"
        assert "2_2 was wanted back" in site.pass_error("3")

        assert "has not failed" in _command(site, "retry", "2", code=2)
        assert "3_3 is served" in _command(site, "retry", "--wait_s=20")
        site.require_served("3")
        assert "no pass has failed" in _command(site, "retry", code=2)


def test_what_waits_is_tried_again_at_once(replicated_site: Site) -> None:
    site = replicated_site
    trainer, proxy = site.trainer, site.proxies["cube1_1"]
    with site.transfer("--replica_deadline_s=0", poll_interval_ms=30_000):
        _deploy(site, "1")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        assert "no pass has failed" in _command(site, "retry", code=2)
        proxy.failing.add("bg_load_base")
        _deploy(site, "2")
        assert site.status()["passes"][0]["late_replicas"] == ["cube1_1"]
        # It hears what the others serve, and so says itself that it is not ready.
        wait_until(lambda: site.command("cube1_1", "status")["want_version"] == "2_2")
        assert not site.command("cube1_1", "status")["ready"]
        # A server that is behind is asked when the order comes, and not when its time comes.
        attempts = site.status()["replicas"]["cube1_1"]["attempts"]
        assert "2: 2_2 is tried again at once on cube1_1" in _command(site, "retry", "2")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["attempts"] > attempts)
        proxy.failing.clear()
        _command(site, "retry")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        site.require_served("2")
        assert all(site.command(name, "status")["ready"] for name in site.servers)

    for each in site.proxies.values():
        each.failing.add("download")
    with site.transfer("--replica_deadline_s=0"):
        trainer.announce(trainer.write("3"))
        # Waits between attempts have become seconds by then.
        wait_until(lambda: site.status()["replicas"]["cube0_0"]["attempts"] > 4)
        assert "3 is under way; pass 2 has to wait" in _command(site, "retry", "2", code=2)
        for each in site.proxies.values():
            each.failing.clear()
        assert "3_3 is served after" in _command(site, "retry", "--wait_s=20")
        site.require_served("3")


def test_a_paused_daemon_takes_no_new_pass(site: Site) -> None:
    trainer = site.trainer
    with site.transfer():
        _deploy(site, "1")
        assert _command(site, "pause") == "paused\n"
        trainer.announce(trainer.write("2"))
        wait_until(lambda: site.status()["donefile"]["pass_count"] == 2)
    with site.transfer():
        wait_until(lambda: site.status()["replicas"]["cube0_0"]["ready"])
        assert site.status()["paused"]
        assert site.stage("2") == ""
        shown = _command(site, "status")
        assert "ctr_embedding: serves 1_1 (paused)" in shown
        assert "cube1_0" in shown
        assert _command(site, "resume") == "resumed\n"
        site.await_stage("2", "done")
        site.require_served("2")


def test_status_says_why_a_pass_is_not_served(site: Site) -> None:
    trainer = site.trainer
    with site.transfer():
        _deploy(site, "1")
        trainer.announce({"id": "2", "key": "2", "input": "../gone"}, '{"id": "3"', end="")
        site.await_stage("2", "failed")
        wait_until(lambda: site.status()["donefile"]["incomplete_line"])
        shown = _command(site, "status")
        assert "2 (2_2) failed: " in shown
        assert "/gone: no such directory; the donefile names it" in shown
        assert f"{trainer.donefile}:3: has no newline yet" in shown


def test_commands_need_the_token(site: Site, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("a-secret-of-the-site\n")
    other_file = tmp_path / "other"
    other_file.write_text("another-secret")
    with site.transfer(f"--operate_token_file={token_file}") as daemon:
        for arguments in (["pause"], ["pause", f"--token_file={other_file}"]):
            assert "wrong or missing token" in _command(site, *arguments, code=2)
        assert not site.status()["paused"]
        _command(site, "pause", f"--token_file={token_file}")
        assert site.status()["paused"]
        assert "a-secret-of-the-site" not in daemon.log()
        assert "token=False what=pause result=refused" in daemon.log()
        assert "token=True what=pause result=done" in daemon.log()
        _command(site, "rollback", "9", f"--token_file={token_file}", code=2)
        assert "token=True what=rollback 9 result=failed: " in daemon.log()


def test_what_the_original_answers(site: Site) -> None:
    with site.transfer():
        _deploy(site, "7")
        info = _get(site, "/dict/info")
        assert (info["dict_name"], info["shard_num"], info["inst_num"]) == ("ctr_embedding", 2, 2)
        assert info["wait_version_info"] is None
        (history,) = _get(site, "/dict/deploy/history")
        assert (history["version"], history["depend"], history["mode"]) == (7, 7, "base")
        wait_until(lambda: {i["version"] for i in _get(site, "/instance/status")} == {7})
        assert {(i["shard"], i["ip"]) for i in _get(site, "/instance/status")} == {
            (0, "127.0.0.1"),
            (1, "127.0.0.1"),
        }
        (source,) = json.loads(_get(site, "/dict/scaler?shard=1"))
        table = site.output / "7_7" / "ctr_embedding_part1.table"
        assert site.http.get(source["data_source"]).content == table.read_bytes()
        meta = _get(site, "/dict/meta_info?name=ctr_embedding&version=7&depend=7&shard=1")
        assert meta["meta"]["file_bytes"] == table.stat().st_size
        for path, words in (
            ("/dict/scaler?shard=2", "none of 0 to 1"),
            ("/dict/meta_info?name=ctr_embedding&version=7&depend=7", "need arg: shard"),
            ("/dict/meta_info?name=x&version=7&depend=7&shard=0", "no dict x"),
            ("/dict/meta_info?name=ctr_embedding&version=..&depend=7&shard=0", "is not <base>"),
        ):
            assert words in _get(site, path)


def test_no_answer_has_the_password_of_the_donefile(site: Site) -> None:
    with site.transfer(donefile_address="ftp://trainer:hunter2@127.0.0.1:1/base.txt") as daemon:
        wait_until(lambda: site.status()["donefile"]["error"])
        for path in ("/status", "/history", "/metrics", "/dict/info"):
            assert "hunter2" not in site.http.get(f"{site.url()}{path}").text, path
        assert _get(site, "/dict/info")["donefile_addr"] == "ftp://***@127.0.0.1:1/base.txt"
        assert "hunter2" not in daemon.log()


def test_brackets_in_an_error_are_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "[default] x: [/data] is full"
    replica = {"cur_version": "", "bg_version": "", "endpoint": "h:1", "ready": False}
    record = {"id": "1", "version": "1_1", "stage": "failed", "reached_at_s": {}, "error": error}
    answers = {
        "/history": [{**record, "late_replicas": [], "rolled_back": False}],
        "/status": {
            **{"dict_name": "d", "serving": "", "paused": False, "deploying": None, "passes": []},
            **{"error": "", "donefile": None, "patch_file": None},
            "replicas": {"cube0_0": {**replica, "error": error}},
        },
    }
    monkeypatch.setattr(commands.DaemonClient, "get", lambda _, path: answers[path])
    for command in ("status", "history"):
        with pytest.raises(SystemExit) as ended:
            command_line.run(app, [command, "--url=http://127.0.0.1:1"])
        assert ended.value.code == 0
        words = capsys.readouterr().out.replace("│", " ").split()
        assert {*error.split()} <= {*words}


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://127.0.0.1:1", "does it run?"), ("nonsense://x", "does it run?")],
)
def test_a_daemon_that_does_not_answer(
    capsys: pytest.CaptureFixture[str], url: str, words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.run(app, ["status", f"--url={url}"])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
