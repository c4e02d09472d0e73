"""Roles that die, hang and hold on, in place of real ones: small programs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from cube_cluster import child, role_runner
from cube_cluster.identity import identity_of
from cube_cluster.role_runner import RoleRunner, request_restart
from cube_cluster.roles import Role
from cube_core.errors import ClusterError

READY = "print('x ready: port=1'); import signal; signal.pause()"
STUBBORN = (
    "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    "print('x ready: child=%d' % child.pid); signal.pause()"
)
TIMEOUT_S = 30.0


def role_of(program: str, ports: dict[str, int] | None = None) -> Role:
    return Role("x_0", "x", "127.0.0.1", ports or {}, (sys.executable, "-c", program))


@contextlib.asynccontextmanager
async def kept(runner: RoleRunner) -> AsyncIterator[None]:
    """The runner's role is kept running inside."""
    keeper = asyncio.create_task(runner.keep())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await runner.stop(TIMEOUT_S)


async def until(condition: Callable[[], object]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.get_running_loop().run_in_executor(None, os.sched_yield)

    await asyncio.wait_for(poll(), TIMEOUT_S)


def kill(runner: RoleRunner) -> int:
    assert runner.record.identity is not None
    os.kill(runner.record.identity.pid, signal.SIGKILL)
    return runner.record.identity.pid


def told_waits(caplog: pytest.LogCaptureFixture) -> list[str]:
    """How long each restart is put off."""
    return [record.getMessage().rpartition(" in ")[2] for record in caplog.records]


@contextlib.contextmanager
def taken_port() -> Iterator[tuple[socket.socket, int]]:
    """Who listens, and where."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, listener.getsockname()[1]


async def test_one_that_ends_before_it_is_ready_is_named_with_its_log(tmp_path: Path) -> None:
    runner = RoleRunner(role_of("print('no such disk'); raise SystemExit(3)"), tmp_path, _nothing)
    with pytest.raises(ClusterError, match=r"x_0 ended with exit code 3(.|\n)*no such disk"):
        await runner.start(TIMEOUT_S)


async def test_one_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    runner = RoleRunner(role_of("import signal; signal.pause()"), tmp_path, _nothing)
    with pytest.raises(ClusterError, match=r"x_0 was not ready within 0\.2 s"):
        await runner.start(0.2)
    await runner.stop(TIMEOUT_S)
    assert runner.record.state == "ended"


async def test_one_that_ignores_sigterm_is_killed_with_what_it_started(tmp_path: Path) -> None:
    runner = RoleRunner(role_of(STUBBORN), tmp_path, _nothing)
    await runner.start(TIMEOUT_S)
    child = int((tmp_path / "x_0" / "x_0.log").read_text().rpartition("=")[2])
    assert identity_of(child)
    await runner.stop(0.3)
    await until(lambda: identity_of(child) is None)


async def test_waits_double_until_a_role_ran_long_and_a_restart_is_not_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(role_runner, "BACKOFF_MIN_S", 0.1)
    monkeypatch.setattr(role_runner, "BACKOFF_MAX_S", 0.3)
    caplog.set_level("ERROR")
    runner = RoleRunner(role_of(READY), tmp_path, _nothing)
    await runner.start(TIMEOUT_S)

    async def restarted(pid: int) -> None:
        await until(lambda: runner.record.state == "ready" and runner.record.identity is not None)
        await until(lambda: runner.record.identity and runner.record.identity.pid != pid)
        await until(lambda: runner.record.state == "ready")

    async with kept(runner):
        for _ in range(3):
            await restarted(kill(runner))
        monkeypatch.setattr(role_runner, "STABLE_S", 0.0)
        await restarted(kill(runner))
        monkeypatch.undo()
        assert runner.record.restart_count == 4
        request_restart(tmp_path / "x_0")
        await restarted(kill(runner))
        assert runner.record.restart_count == 4
        assert not (tmp_path / "x_0" / "restart").exists()
    assert told_waits(caplog) == ["0.1 s", "0.2 s", "0.3 s", "0.1 s"]


async def test_a_role_whose_port_was_taken_meanwhile_waits_and_says_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_runner, "BACKOFF_MIN_S", 0.1)
    with taken_port() as (listener, port):
        runner = RoleRunner(role_of(READY, {"port": port}), tmp_path, _nothing)
        await runner.start(TIMEOUT_S)
        async with kept(runner):
            kill(runner)
            await until(lambda: "is taken by" in runner.record.last_exit)
            assert runner.record.identity is None
            told = f"port {port} of x_0 is taken by pid {os.getpid()} ("
            assert runner.record.last_exit.startswith(told)
            listener.close()
            await until(lambda: runner.record.state == "ready")


async def test_waits_for_a_port_double_however_long_ago_the_role_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(role_runner, "BACKOFF_MIN_S", 0.1)
    monkeypatch.setattr(role_runner, "STABLE_S", 0.0)
    caplog.set_level("ERROR")
    with taken_port() as (_, port):
        runner = RoleRunner(role_of(READY, {"port": port}), tmp_path, _nothing)
        await runner.start(TIMEOUT_S)
        async with kept(runner):
            kill(runner)
            await until(lambda: len(caplog.records) == 4)
    assert told_waits(caplog) == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]


async def test_a_role_that_cannot_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_runner, "BACKOFF_MIN_S", 0.1)
    python = tmp_path / "python"
    python.symlink_to(sys.executable)
    role = Role("x_0", "x", "127.0.0.1", {}, (str(python), "-c", READY))
    runner = RoleRunner(role, tmp_path, _nothing)
    await runner.start(TIMEOUT_S)
    async with kept(runner):
        python.unlink()
        kill(runner)
        await until(lambda: "cannot be started: [Errno 2]" in runner.record.last_exit)
        python.symlink_to(sys.executable)
        await until(lambda: runner.record.state == "ready")


async def test_a_wait_ends_at_once_when_a_restart_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role_runner, "BACKOFF_MIN_S", 10_000.0)
    monkeypatch.setattr(role_runner, "BACKOFF_MAX_S", 10_000.0)
    runner = RoleRunner(role_of(READY), tmp_path, _nothing)
    await runner.start(TIMEOUT_S)
    async with kept(runner):
        kill(runner)
        await until(lambda: runner.record.state == "waiting")
        request_restart(tmp_path / "x_0")
        await until(lambda: runner.record.state == "ready")


async def test_a_large_log_is_put_aside_at_a_start_and_one_of_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, aside = tmp_path / "x_0" / "x_0.log", tmp_path / "x_0" / "x_0.log.1"
    log.parent.mkdir()
    for before in ("first", "second"):
        log.write_text(f"{before}\n" * 20)
        monkeypatch.setattr(child, "LOG_BYTES_MAX", log.stat().st_size - 1)
        runner = RoleRunner(role_of(READY), tmp_path, _nothing)
        await runner.start(TIMEOUT_S)
        await runner.stop(TIMEOUT_S)
        assert log.read_text() == "x ready: port=1\n"
        assert aside.read_text() == f"{before}\n" * 20
    monkeypatch.setattr(child, "LOG_BYTES_MAX", log.stat().st_size)
    runner = RoleRunner(role_of(READY), tmp_path, _nothing)
    await runner.start(TIMEOUT_S)
    await runner.stop(TIMEOUT_S)
    assert log.read_text() == "x ready: port=1\n" * 2
    assert {path.name for path in log.parent.iterdir()} == {"x_0.log", "x_0.log.1"}


def _nothing() -> None:
    pass
