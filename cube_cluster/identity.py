"""Processes told apart by pid and start time, so that a pid that is used again is a stranger."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

_STATE, _START_TICKS = 0, 19
"""Places in /proc/<pid>/stat, from the field behind the command's name."""


class Identity(BaseModel):
    """One process since this machine's start: `start_ticks` is when it started, in clock ticks
    since then."""

    model_config = ConfigDict(frozen=True)

    pid: int
    start_ticks: int


def boot_id() -> str:
    """Another one after each start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def identity_of(pid: int) -> Identity | None:
    """Who has this pid now; None: nobody, or one that has ended and waits to be reaped."""
    try:
        fields = _stat(pid)
    except OSError:
        return None
    return None if fields[_STATE] in (b"Z", b"X") else _identity(pid, fields)


def child_identity(pid: int) -> Identity:
    """That of a child which is not reaped yet, also when it has ended."""
    return _identity(pid, _stat(pid))


def _stat(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()


def _identity(pid: int, fields: list[bytes]) -> Identity:
    return Identity(pid=pid, start_ticks=int(fields[_START_TICKS]))


def is_alive(identity: Identity | None) -> bool:
    """Whether that very process runs."""
    return identity is not None and identity_of(identity.pid) == identity


def command_of(pid: int) -> str:
    """Its command line; "" when it may not be read or is gone."""
    try:
        data = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return " ".join(data.decode(errors="replace").split("\0")).strip()


@dataclass(frozen=True)
class _Held:
    """A process by descriptor: a signal through it can reach no other."""

    identity: Identity
    descriptor: int

    def has_ended(self, timeout_s: float) -> bool:
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))


def end_processes(identities: list[Identity], timeout_s: float) -> list[Identity]:
    """SIGTERM to each of them that still runs, SIGKILL with all it started to those that have not
    ended by the deadline; returns those that ran. Others that have one of the pids by now are not
    touched.

    Raises:
        PermissionError: one belongs to another user.
    """
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(_held(identity)) for identity in identities]
        held = [each for each in found if each is not None]
        for each in held:
            _signal(each, signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for each in held:
            if not each.has_ended(deadline - time.monotonic()):
                with contextlib.suppress(ProcessLookupError):
                    # Roles lead a group of their own.
                    if os.getpgid(each.identity.pid) == each.identity.pid:
                        os.killpg(each.identity.pid, signal.SIGKILL)
                _signal(each, signal.SIGKILL)
                each.has_ended(timeout_s)
        return [each.identity for each in held]


@contextlib.contextmanager
def _held(identity: Identity) -> Iterator[_Held | None]:
    try:
        descriptor = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # Asked behind the opening: from here on the descriptor means who is asked for.
        yield _Held(identity, descriptor) if is_alive(identity) else None
    finally:
        os.close(descriptor)


def _signal(held: _Held, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(held.descriptor, number)
