"""Where roles listen without `--host`, and what they say when no operate token is set."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cube_core.access import Access
from tests.ctr.service import ctr_running, write_conf
from tests.processes import Role
from tests.security.test_proxies import daemon, shard_server

Start = Callable[..., contextlib.AbstractContextManager[Role]]
SAYS = "no operate token is set"


@contextlib.contextmanager
def cube_server(directory: Path, *flags: str) -> Iterator[Role]:
    with shard_server(directory, *flags) as (role, _):
        yield role


@contextlib.contextmanager
def cube_transfer(directory: Path, *flags: str) -> Iterator[Role]:
    with daemon(directory, *flags) as (role, _):
        yield role


@contextlib.contextmanager
def ctr_serving(directory: Path, *flags: str) -> Iterator[Role]:
    write_conf(directory, [1, 2])
    with ctr_running(directory, *flags) as ctr:
        yield ctr.role


@pytest.mark.parametrize(
    ("start", "flags", "ports"),
    [
        (cube_server, (), ["port", "grpc_port"]),
        (cube_server, ("--workers=2",), ["port", "grpc_port"]),
        (cube_transfer, (), ["port"]),
        (ctr_serving, (), ["port", "grpc_port"]),
        (ctr_serving, ("--workers=2",), ["port", "grpc_port"]),
    ],
    ids=["cube-server", "with workers", "cube-transfer", "ctr-serving", "ctr-serving's workers"],
)
def test_every_port_is_of_this_machine_only(
    tmp_path: Path, start: Start, flags: tuple[str, ...], ports: list[str]
) -> None:
    with start(tmp_path, *flags) as role:
        listening = _listening(role.process.pid)
        assert {role.port(name) for name in ports} <= {port for _, port in listening}
        assert {address for address, _ in listening} == {"127.0.0.1"}


@pytest.mark.parametrize("start", [cube_server, cube_transfer])
def test_the_log_says_who_commands(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags, level in (((), "INFO"), (("--host=0.0.0.0",), "WARNING")):
        with start(tmp_path, *flags) as role:
            (line,) = [each for each in role.log().splitlines() if SAYS in each]
            assert f" {level} " in line
            assert "from this machine only" in line
    monkeypatch.setenv("CUBE_OPERATE_TOKEN", "token-to-operate")
    with start(tmp_path) as role:
        assert SAYS not in role.log()


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("127.0.0.1", logging.INFO),
        ("127.0.0.2", logging.INFO),
        ("::1", logging.INFO),
        ("localhost", logging.INFO),
        ("0.0.0.0", logging.WARNING),  # noqa: S104
        ("::", logging.WARNING),
        ("10.1.2.3", logging.WARNING),
        ("cube.example", logging.WARNING),
    ],
)
def test_an_address_of_others_is_warned_of(
    caplog: pytest.LogCaptureFixture, host: str, level: int
) -> None:
    caplog.set_level(logging.INFO)
    Access("token-to-read").tell_who_commands(host)
    Access("", "token-to-operate").tell_who_commands(host)
    (record,) = caplog.records
    assert (record.levelno, SAYS in record.getMessage()) == (level, True)


def _listening(pid: int) -> set[tuple[str, int]]:
    """Addresses and ports that a process and those that it started listen on."""
    inodes = {
        str(each.readlink())
        for process in _family(pid)
        for each in Path(f"/proc/{process}/fd").iterdir()
        if each.is_symlink()
    }
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            is_listening = fields[3] == "0A"
            if is_listening and f"socket:[{fields[9]}]" in inodes:
                address, port = fields[1].split(":")
                found.add((_address(address), int(port, 16)))
    return found


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(each for child in children for each in _family(int(child)))]


def _address(hexadecimal: str) -> str:
    """Of the kernel's words of 32 bits, each in the machine's byte order."""
    words = [hexadecimal[start : start + 8] for start in range(0, len(hexadecimal), 8)]
    packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 16:
        version_6 = ipaddress.IPv6Address(packed)
        # gRPC listens on an IPv4 address by that name of it.
        return str(version_6.ipv4_mapped or version_6)
    return str(ipaddress.IPv4Address(packed))
