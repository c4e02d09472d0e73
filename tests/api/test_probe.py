"""When a server that was put aside is used again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cube_api._probe import answers
from cube_core._native import Frame, encode_response_frame
from cube_core.endpoint import Endpoint
from tests.api.conftest import NewPeer
from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.server.tables import place_table


@pytest.fixture
def role(tmp_path: Path) -> Iterator[Role]:
    place_table(tmp_path / "data", 1)
    place_table(tmp_path / "data", 2)
    (tmp_path / "data" / "VERSION").write_text("1_1")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role:
        yield role


def test_one_that_is_late_is_not_used_before_it_has_caught_up(role: Role) -> None:
    endpoint = Endpoint("127.0.0.1", role.port())
    with ServerClient(role) as client:
        assert answers(endpoint, within_s=10)
        client.state("want", version="2_2")
        assert not answers(endpoint, within_s=10)
        client.state("enable", version="2_2")
        assert answers(endpoint, within_s=10)
        role.stop()
    assert not answers(endpoint, within_s=10)


@pytest.mark.parametrize("status", [b"[" * 200_000, b"1" * 6000, b"\xff", b"null"], ids=range(4))
def test_one_that_answers_with_no_status_is_taken_for_ready(
    new_peer: NewPeer, status: bytes
) -> None:
    """An error here would end the thread that probes, and nobody would be used again."""

    def answer(frame: Frame) -> bytes:
        attachment = status if frame.method == "cmd" else b""
        return encode_response_frame(frame.correlation_id, b"", attachment=attachment)

    assert answers(new_peer(answer).endpoint, within_s=10)
