"""Which ports of this machine are taken, and by whom."""

from __future__ import annotations

import contextlib
import pwd
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cube_cluster.identity import command_of

_LISTEN = "0A"


def is_local(host: str) -> bool:
    """Whether an address or name stands for this machine. A name that cannot be resolved does
    not."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def is_taken(host: str, port: int) -> bool:
    """Whether a server could not listen there."""
    with socket.socket() as probe:
        # As servers bind: connections that linger in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def holder_of(port: int) -> str:
    """Who has a port, in words: pid and command, or at least the user."""
    sockets = sorted(_sockets_at(port), key=lambda each: not each.is_listening)
    if not sockets:
        return "a process that /proc does not tell"
    pids = {found.inode: pid for pid, found in _owners(sockets)}
    for each in sockets:
        if each.inode in pids:
            pid = pids[each.inode]
            return f"pid {pid} ({command_of(pid) or 'command unknown'})"
    return f"a process of user {_user_name(sockets[0].uid)}"


class _Socket(NamedTuple):
    inode: int
    uid: int
    is_listening: bool


def _sockets_at(port: int) -> Iterator[_Socket]:
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                _, local, _, state, _, _, _, uid, _, inode, *_ = line.split()
                if int(local.rpartition(":")[2], 16) == port and inode != "0":
                    yield _Socket(int(inode), int(uid), state == _LISTEN)


def _owners(sockets: list[_Socket]) -> Iterator[tuple[int, _Socket]]:
    """Processes that have one of the sockets open, as far as they may be looked at."""
    by_link = {f"socket:[{each.inode}]": each for each in sockets}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found = by_link.get(str(descriptor.readlink()))
                    if found is not None:
                        yield int(process.name), found


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
