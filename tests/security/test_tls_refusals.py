"""Who is not believed, and who does not get in, over every wire of a server with mutual TLS."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest

from cube_core.errors import ShardError
from cube_core.tls import TlsFiles
from tests.processes import Role
from tests.security.certificates import Authority, flags
from tests.security.tls_wires import WIRES, seek, serving

FAILURES = (ShardError, httpx.TransportError, grpc.RpcError)


@dataclass(frozen=True)
class Case:
    """A client, or a server, that is no good.

    Attributes:
        client: None for plain text.
        words: what the client's error says; where it is the server that refuses, TLS 1.3 lets the
            client learn of it from the end of the connection only.
    """

    client: TlsFiles | None
    words: str = ""
    server_name: str = ""
    is_server_expired: bool = False


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("refusals")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory, "ours")


@pytest.fixture(scope="module")
def good(authority: Authority) -> TlsFiles:
    return authority.issue("client", trusts=authority.ca_file)


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def servers(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
) -> Iterator[dict[bool, Role]]:
    """By whether their certificate has expired."""
    with contextlib.ExitStack() as stack:
        roles = {}
        for is_expired in (False, True):
            files = authority.issue(expired=is_expired, trusts=authority.ca_file)
            directory = tmp_path_factory.mktemp("server")
            workers = f"--workers={request.param}"
            roles[is_expired] = stack.enter_context(serving(directory, workers, *flags(files)))
        yield roles


@pytest.fixture(scope="module")
def cases(directory: Path, authority: Authority, good: TlsFiles) -> dict[str, Case]:
    stranger = Authority(directory, "stranger")
    ca_file = authority.ca_file
    return {
        "wrong CA": Case(
            TlsFiles(good.cert_file, good.key_file, stranger.ca_file), "certificate.verify.failed"
        ),
        "wrong name": Case(
            good, "hostname mismatch|peer certificate|hostname verification", "other.example.org"
        ),
        "expired server certificate": Case(
            good, "certificate.verify.failed|certificate has expired", is_server_expired=True
        ),
        "expired client certificate": Case(authority.issue("old", expired=True, trusts=ca_file)),
        "a stranger's client certificate": Case(stranger.issue("client", trusts=ca_file)),
        "no client certificate": Case(TlsFiles(ca_file=ca_file)),
        "plain text": Case(None),
    }


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    "case",
    [
        "wrong CA",
        "wrong name",
        "expired server certificate",
        "expired client certificate",
        "a stranger's client certificate",
        "no client certificate",
        "plain text",
    ],
)
def test_no_seek_is_answered(
    tmp_path: Path,
    servers: dict[bool, Role],
    cases: dict[str, Case],
    good: TlsFiles,
    case: str,
    wire: str,
) -> None:
    given = cases[case]
    with pytest.raises(FAILURES) as refused:
        seek(wire, servers[given.is_server_expired], tmp_path, given.client, given.server_name)
    text = str(refused.value)
    if isinstance(refused.value, grpc.RpcError):
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        text = str(refused.value.details())
    assert re.search(given.words, text, re.IGNORECASE), text
    # It is the case that is refused, and nobody else minds.
    seek(wire, servers[False], tmp_path, good)


def test_plain_http_gets_no_byte_of_an_answer(servers: dict[bool, Role]) -> None:
    with socket.create_connection(("127.0.0.1", servers[False].port()), timeout=10) as plain:
        plain.sendall(b"GET /status HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        while piece := plain.recv(4096):
            answer += piece
    assert b"HTTP/1.1" not in answer
