"""Addresses as configuration files write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core.endpoint import Endpoint, parse_endpoint_list


@given(host=st.from_regex(r"[a-z0-9.\-]{1,30}", fullmatch=True), port=st.integers(1, 65535))
def test_reads_what_it_writes(host: str, port: int) -> None:
    endpoint = Endpoint(host, port)
    assert Endpoint.parse(str(endpoint)) == endpoint
    assert Endpoint.parse(f" {endpoint} ") == endpoint


@pytest.mark.parametrize("text", ["", "host", ":1", "host:", "host:0", "host:65536", "host:-1"])
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port with a port from 1 to 65535"):
        Endpoint.parse(text)


def test_lists() -> None:
    expected = [Endpoint("a", 1), Endpoint("b", 2)]
    assert parse_endpoint_list("list://a:1,b:2", "f") == expected
    assert parse_endpoint_list("list://a:1, b:2,", "f") == expected
    assert parse_endpoint_list("a:1,b:2", "f") == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("list://", "f: names no server"),
        ("", "f: names no server"),
        ("list://a:1,b", "f: 'b' is not host:port"),
        ("zk://a:1", "f: zk:// is not supported"),
    ],
)
def test_names_the_field_of_a_bad_list(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_endpoint_list(text, "f")
