"""A supervisor whose surroundings fail, over small programs in place of roles."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cube_cluster import supervisor
from cube_cluster.identity import identity_of
from cube_cluster.processes_file import ProcessesRecord, read_processes
from cube_cluster.roles import Role
from cube_cluster.supervisor import Supervisor
from tests.cluster.test_role_runner import READY, TIMEOUT_S, until


def role_of(name: str) -> Role:
    return Role(name, "cube_server", "127.0.0.1", {}, (sys.executable, "-c", READY))


@contextlib.asynccontextmanager
async def supervised(run_dir: Path, *roles: Role) -> AsyncIterator[dict[str, int]]:
    """Pids of the roles, which are up inside and have ended behind it."""
    up: asyncio.Future[ProcessesRecord] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(Supervisor(roles, run_dir, "c", TIMEOUT_S).run(up.set_result))
    record = await asyncio.wait_for(up, TIMEOUT_S)
    pids = {name: role.identity.pid for name, role in record.roles.items() if role.identity}
    try:
        yield pids
        assert not task.done()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(task, TIMEOUT_S)
        assert not any(identity_of(pid) for pid in pids.values())


async def test_roles_go_on_and_can_be_ended_while_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    caplog.set_level("INFO")
    async with supervised(tmp_path, role_of("a"), role_of("b")) as pids:
        with monkeypatch.context() as full:
            full.setattr(supervisor, "write_processes", write)
            os.kill(pids["a"], signal.SIGKILL)
            await until(lambda: "a is ready again" in caplog.text or not identity_of(pids["b"]))
        assert identity_of(pids["b"])
        assert "processes.json cannot be written: [Errno 28]" in caplog.text
        monkeypatch.setattr(supervisor, "write_processes", write)
    assert read_processes(tmp_path) is None
