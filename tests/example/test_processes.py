"""Roles are waited for, and ended by pid whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.criteo_ctr import interrupts, processes
from examples.criteo_ctr.processes import ProcessError, ProcessGroup, Role
from tests.waiting import wait_until

READY = "print('role ready: port=1'); import signal; signal.pause()"
STUBBORN = (
    "import signal, subprocess, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    "print('role ready: child=%d' % child.pid); signal.pause()"
)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[ProcessGroup]:
    group = ProcessGroup(tmp_path)
    yield group
    group.stop()


def _start(group: ProcessGroup, directory: Path, name: str, program: str) -> Role:
    (directory / f"{name}.py").write_text(program)
    return group.start(name, name, [])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An orphan that ended stays a zombie until init takes it.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_ready_line_is_found_and_stop_ends_the_process(group: ProcessGroup, tmp_path: Path) -> None:
    role = _start(group, tmp_path, "role_a", READY)
    assert group.wait_ready(role, 20.0) == "role ready: port=1"
    group.check_alive()
    group.stop()
    assert role.process.returncode == -signal.SIGTERM


def test_a_process_that_ends_is_named_with_the_end_of_its_log(
    group: ProcessGroup, tmp_path: Path
) -> None:
    role = _start(group, tmp_path, "role_b", "raise SystemExit('error: no such file')")
    with pytest.raises(ProcessError, match=r"role_b ended with exit code 1(.|\n)*no such file"):
        group.wait_ready(role, 20.0)
    with pytest.raises(ProcessError, match="role_b ended"):
        group.check_alive()


def test_a_process_that_is_never_ready_is_given_up(group: ProcessGroup, tmp_path: Path) -> None:
    role = _start(group, tmp_path, "role_c", "import signal; signal.pause()")
    with pytest.raises(ProcessError, match=r"not ready within 0\.2 s"):
        group.wait_ready(role, 0.2)


def test_one_that_ignores_sigterm_is_killed_with_its_children(
    group: ProcessGroup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_STOP_TIMEOUT_S", 0.3)
    role = _start(group, tmp_path, "role_d", STUBBORN)
    child = int(group.wait_ready(role, 20.0).rpartition("=")[2])
    assert _runs(child)
    group.stop()
    assert role.process.returncode == -signal.SIGKILL
    wait_until(lambda: not _runs(child), what="the child's end")


def test_a_signal_waits_until_a_held_block_ends() -> None:
    previous = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    interrupts.install()
    reached = []

    def start() -> None:
        with interrupts.held():
            os.kill(os.getpid(), signal.SIGTERM)
            with interrupts.held():
                reached.append("inner")
            reached.append("outer")
        reached.append("after")

    try:
        with pytest.raises(interrupts.Interrupted, match="SIGTERM") as caught:
            start()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert reached == ["inner", "outer"]
    assert caught.value.exit_code == 128 + signal.SIGTERM
