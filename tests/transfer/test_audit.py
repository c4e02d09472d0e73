"""The line that every command to the daemon leaves behind."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import lmdb
import pytest

from cube_core.access import Access
from cube_core.conf.transfer_conf import TransferConf
from cube_core.log import JsonFormatter
from cube_transfer.app import create_app
from cube_transfer.control_client import ServersHttp
from cube_transfer.daemon import Daemon
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage, State
from cube_transfer.table_links import TableLinks

TOKEN = "token-to-operate"  # noqa: S105
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def state(tmp_path: Path) -> State:
    state = State(tmp_path / "state")
    state.save(
        PassRecord(
            id="7",
            key="7",
            version="7_7",
            input="x",
            dense="",
            fields={},
            order=1,
            stage=Stage.FAILED,
        )
    )
    return state


@pytest.fixture
async def client(tmp_path: Path, state: State) -> AsyncIterator[httpx.AsyncClient]:
    conf = TransferConf(
        dict_name="ctr",
        wget_port=8098,
        donefile_address=str(tmp_path),
        output_address=str(tmp_path / "output"),
        tmp_address=str(tmp_path / "tmp"),
        shard_num=1,
    )
    async with httpx.AsyncClient() as http:
        daemon = Daemon(
            Settings(conf, TableLinks("http://127.0.0.1", b"key")), state, http, ServersHttp()
        )
        transport = httpx.ASGITransport(create_app(daemon, Access("", TOKEN)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client
    state.close()


@pytest.fixture
def audited(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines so far, as they are written, without who and token."""
    caplog.set_level(logging.INFO, "cube.audit")
    formatter = JsonFormatter("cube-transfer")

    def lines() -> list[str]:
        records = [each for each in caplog.records if each.name == "cube.audit"]
        assert not any(TOKEN in formatter.format(each) for each in caplog.records)
        return [each.getMessage().partition(" what=")[2] for each in records]

    return lines


async def test_what_was_asked_and_what_came_of_it(
    client: httpx.AsyncClient, audited: Callable[[], list[str]]
) -> None:
    for path, body, code in (
        ("pause", {}, 200),
        ("retry", {"id": "7"}, 200),
        ("rollback", {"version": "9"}, 409),
        ("rollback", {}, 409),
        ("rollback", {"version": TOKEN}, 409),
        ("rollback", {"version": "9\n2026 INFO who=x what=y result=done"}, 409),
    ):
        answer = await client.post(f"/control/{path}", json=body, headers=AUTHORIZED)
        assert answer.status_code == code, answer.text
    paused, retried, refused, unnamed, of_a_token, of_two_lines = audited()
    assert paused == "pause result=done"
    assert retried == "retry 7 result=done"
    assert refused.startswith("rollback 9 result=failed: 7 (7_7) is still waiting")
    assert unnamed.startswith("rollback result=failed: ")
    assert of_a_token.startswith("rollback ")
    assert "\n" not in of_two_lines


async def test_what_breaks_is_told_and_audited(
    client: httpx.AsyncClient,
    state: State,
    audited: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    for error in (full, lmdb.MapFullError("mdb_put: MDB_MAP_FULL")):

        def records(_error: Exception = error) -> None:
            raise _error

        monkeypatch.setattr(state, "records", records)
        answer = await client.post("/control/retry", json={"id": "7"}, headers=AUTHORIZED)
        assert answer.status_code == 500
        assert str(error) in answer.json()["detail"]
        assert audited()[-1] == f"retry 7 result=failed: {error}"
    assert len(audited()) == 2


async def test_who_and_what_is_refused_leaves_a_line(
    client: httpx.AsyncClient, audited: Callable[[], list[str]]
) -> None:
    answer = await client.post("/control/rollback", json={"version": "9"})
    assert answer.status_code == 401
    assert audited() == ["rollback result=refused"]
    for body in (b'{"version": ', b'{"pass": "9"}', b"[]"):
        answer = await client.post("/control/rollback", content=body, headers=AUTHORIZED)
        assert answer.status_code == 422
        assert audited()[-1].startswith("rollback result=failed: body")
    assert len(audited()) == 4


async def test_a_command_that_is_cut_off_leaves_a_line(
    client: httpx.AsyncClient,
    state: State,
    audited: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def save(*_: object, **__: object) -> None:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(end.wait(), loop).result(10)

    monkeypatch.setattr(state, "save", save)
    asked = asyncio.ensure_future(client.post("/control/resume", headers=AUTHORIZED))
    await begun.wait()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    end.set()
    assert audited() == ["resume result=failed: CancelledError"]
