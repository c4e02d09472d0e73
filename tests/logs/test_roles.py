"""Logs of real processes as JSON: every line an object, with what it is about, and no secret."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.logs.lines import json_lines
from tests.processes import running
from tests.server.tables import DICT_NAME, place_table
from tests.transfer.passes import DICT_NAME as PASS_DICT_NAME
from tests.transfer.site import Site
from tests.waiting import wait_until

TOKEN = "operate-token-of-the-test"  # noqa: S105
PASSWORD = "pass-word-of-the-source"  # noqa: S105


def test_a_shard_server_with_workers(tmp_path: Path) -> None:
    place_table(tmp_path / "data", 10)
    (tmp_path / "data" / "VERSION").write_text("10_10")
    (tmp_path / "operate").write_text(TOKEN)
    (tmp_path / "flags").write_text("--log_format=json\n--logtostderr=true\n")
    arguments = ["--flagfile=flags", "--port=0", "--grpc_port=-1", "--data_dir=data"]
    arguments += ["--workers=2", "--operate_token_file=operate", f"--dict_name={DICT_NAME}"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        url = f"http://127.0.0.1:{role.port()}/ControlService/cmd"
        for token in (TOKEN, "wrong-" + TOKEN):
            httpx.post(
                url,
                json={"cmd": "enable", "version": "10_10"},
                headers={"authorization": f"Bearer {token}"},
                trust_env=False,
            )
        role.stop()
        lines = json_lines(role, "cube-server")
        assert TOKEN not in role.log()
    audits = [line for line in lines if line["logger"] == "cube.audit"]
    done, refused = audits
    assert (done["what"], done["result"], done["token"]) == ("enable 10_10", "done", True)
    assert done["version"] == "10_10"
    assert done["who"].startswith("127.0.0.1:")
    assert refused["result"] == "refused"
    served = next(line for line in lines if line["message"].startswith("serves version"))
    assert served["dict"] == DICT_NAME
    assert any("--logtostderr has no meaning" in line["message"] for line in lines)


def test_the_daemon(tmp_path: Path) -> None:
    site = Site(tmp_path, 1, 1)
    try:
        site.start()
        line = site.trainer.write("1")
        # A source that answers nobody: the password must not stand in what is said about it.
        address = f"ftp://user:{PASSWORD}@127.0.0.1:1/pass"
        site.trainer.announce(line, {"id": "2", "key": "2", "input": address})
        with site.transfer("--log_format=json") as daemon:
            about = wait_until(
                lambda: [
                    line
                    for line in json_lines(daemon, "cube-transfer")
                    if line["level"] == "WARNING" and line.get("version") == "2_2"
                ],
                timeout_s=60,
                what="the source that does not answer",
            )
            assert PASSWORD not in daemon.log()
            for path in ("/status", "/history", "/dict/deploy/history", "/"):
                assert PASSWORD not in site.http.get(f"{site.url()}{path}").text
            assert about[0]["dict"] == PASS_DICT_NAME
            assert "127.0.0.1:1" in about[0]["message"]
    finally:
        site.close()


def test_what_ends_a_process_is_an_object_too(tmp_path: Path) -> None:
    for module in ("cube_server.main", "ctr_serving.main"):
        ended = subprocess.run(
            [sys.executable, "-m", module, "--port=0", "--read_token_file=nowhere"],
            cwd=tmp_path,
            env={**os.environ, "CUBE_LOG_FORMAT": "json"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 2
        last = json.loads(ended.stderr.splitlines()[-1])
        assert last["level"] == "CRITICAL"
        assert last["message"]
