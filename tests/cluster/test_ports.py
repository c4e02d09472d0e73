"""Whether a port is taken, by whom, and which hosts are this machine."""

from __future__ import annotations

import os
import pwd
import socket

import pytest

from cube_cluster import ports


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_listener_is_found_with_its_process(family: socket.AddressFamily) -> None:
    with socket.socket(family) as listener:
        listener.bind(("", 0))
        port = listener.getsockname()[1]
        listener.listen()
        assert ports.is_taken("127.0.0.1", port)
        assert ports.holder_of(port).startswith(f"pid {os.getpid()} (")
    assert not ports.is_taken("127.0.0.1", port)
    assert ports.holder_of(port) == "a process that /proc does not tell"


def test_of_a_process_that_may_not_be_looked_at_the_user_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ports, "_owners", lambda sockets: [])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        told = ports.holder_of(listener.getsockname()[1])
    assert told == f"a process of user {pwd.getpwuid(os.getuid()).pw_name}"


def test_a_port_that_a_client_took_is_told_too() -> None:
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client.connect(listener.getsockname())
        port = client.getsockname()[1]
        assert ports.is_taken("127.0.0.1", port)
        assert ports.holder_of(port).startswith(f"pid {os.getpid()} (")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("192.0.2.1", False),
        ("no-such-host.invalid", False),
    ],
)
def test_hosts_of_this_machine_are_told_from_others(host: str, local: bool) -> None:
    assert ports.is_local(host) is local
