"""Addresses of servers: lists, files and names, with weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube_core.conf.naming import WEIGHT_MAX, Server, check_address, servers_of
from cube_core.endpoint import Endpoint

A, B = Endpoint("a", 1), Endpoint("b", 2)


@pytest.mark.parametrize("address", ["list://a:1,b:2 7", "a:1, b:2  7,", "list://a:1 9,a:1,b:2 7"])
def test_lists(address: str) -> None:
    assert servers_of(address, "f") == [Server(A), Server(B, 7)]


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "servers"
    path.write_text("# two of them\n\n  a:1\nb:2 7 # heavy\n")
    assert servers_of(f"file://{path}", "f") == [Server(A), Server(B, 7)]
    path.write_text("# none\n")
    with pytest.raises(ValueError, match=rf"f \({path}\): names no server"):
        servers_of(f"file://{path}", "f")
    with pytest.raises(FileNotFoundError):
        servers_of(f"file://{path}.gone", "f")


def test_names() -> None:
    assert Server(Endpoint("127.0.0.1", 80)) in servers_of("http://localhost:80", "f")
    with pytest.raises(ValueError, match=r"f: 'no\.\.such\.name' is no name"):
        servers_of("http://no..such.name:80", "f")


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("a", "f: 'a' is not host:port"),
        ("list://", "f: names no server"),
        ("a:1 0", f"f: weight '0' is not a whole number from 1 to {WEIGHT_MAX}"),
        ("a:1 x", "f: weight 'x'"),
        ("file://", "f: file:// needs a path"),
        ("http://name", "f: 'name' is not host:port"),
        ("zk://a:1", "f: zk:// is not supported; write list://"),
    ],
)
def test_malformed_addresses_are_named_without_reading_anything(address: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_address(address, "f")


@pytest.mark.parametrize("address", ["file:///no/such/file", "http://no.such.name:80", "a:1 2"])
def test_the_form_is_checked_without_reading_anything(address: str) -> None:
    check_address(address, "f")
