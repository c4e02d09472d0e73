"""Seeks for values of any width."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_api import (
    STATUS_FAILED,
    STATUS_FOUND,
    STATUS_MISSING,
    STATUS_WRONG_WIDTH,
    MissingKeysError,
    SeekBytesResult,
    ShardError,
    WireError,
)
from cube_core._native import Frame, encode_response_frame
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import answer_with, client_of, conf_of
from tests.api.test_seek import U64_MAX, keys_of
from tests.prpc_peer import LoopThread, Peer

VALUES = {1: b"a", 2: b"bc" * 700, 3: b"def", 4: bytes(65_535), 6: bytes(8)}


def values_of(result: SeekBytesResult) -> list[bytes]:
    return [result.value(i).tobytes() for i in range(len(result.status))]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_equals_a_dict(kind: str, server_thread: LoopThread, client_thread: LoopThread) -> None:
    values: dict[int, bytes] = {}
    peers = [Peer(server_thread, answer_with(values)) for _ in range(3)]
    number = st.integers(0, 40) | st.just(U64_MAX)

    @settings(max_examples=40, deadline=None)
    @given(
        keys=st.lists(number, max_size=40),
        held=st.dictionaries(number, st.binary(min_size=1, max_size=300)),
    )
    def check(keys: list[int], held: dict[int, bytes]) -> None:
        values.clear()
        values.update(held)
        result = client.seek_bytes("d", keys_of(*keys))
        assert result.status.tolist() == [
            STATUS_FOUND if key in held else STATUS_MISSING for key in keys
        ]
        assert values_of(result) == [held.get(key, b"") for key in keys]

    with client_of(kind, client_thread, conf_of([[peer.endpoint] for peer in peers])) as client:
        check()
    for peer in peers:
        peer.stop()


def test_the_arrays_of_a_result(new_client: NewClient, new_peer: NewPeer) -> None:
    client = new_client(conf_of([[new_peer(answer_with(VALUES)).endpoint]]))
    result = client.seek_bytes("d", keys_of(3, 9, 1, 3))
    offsets, values, _ = result
    assert [str(each.dtype) for each in result] == ["int64", "uint8", "int32"]
    assert offsets.tolist() == [0, 3, 3, 4, 7]
    assert values.tobytes() == b"defadef"
    assert result.version == "1_1"
    assert np.shares_memory(result.value(-1), result.values)
    with pytest.raises(IndexError):
        result.value(4)
    again = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert (values_of(again), again.version) == (values_of(result), "1_1")
    assert "of 7 bytes" in repr(result)
    assert len(client.seek_bytes("d", keys_of()).offsets) == 1


def test_rows_of_another_width_are_told_apart_and_there_as_bytes(
    new_client: NewClient, new_peer: NewPeer
) -> None:
    client = new_client(conf_of([[new_peer(answer_with(VALUES)).endpoint]]))
    keys = keys_of(6, 2, 77)
    rows, status = client.seek("d", keys)
    assert rows.shape == (3, 2)
    assert status.tolist() == [STATUS_FOUND, STATUS_WRONG_WIDTH, STATUS_MISSING]
    assert values_of(client.seek_bytes("d", keys)) == [bytes(8), VALUES[2], b""]
    with pytest.raises(ShardError, match="no row of float32; seek_bytes takes it"):
        client.seek("d", keys_of(1))


def test_missing_and_failed_keys(new_client: NewClient, new_peer: NewPeer) -> None:
    good, bad = new_peer(answer_with(VALUES)), new_peer(answer_with(VALUES))
    client = new_client(conf_of([[good.endpoint], [bad.endpoint]], retry=0))
    bad.stop()
    result = client.seek_bytes("d", keys_of(2, 3, 5, 8, 3), on_failure="status")
    assert result.status.tolist() == [0, STATUS_FAILED, STATUS_FAILED, -1, STATUS_FAILED]
    assert values_of(result) == [VALUES[2], b"", b"", b"", b""]
    assert len(result.errors) == 1
    with pytest.raises(ShardError):
        client.seek_bytes("d", keys_of(2, 3))
    with pytest.raises(MissingKeysError, match="1 keys are missing: 8"):
        client.seek_bytes("d", keys_of(2, 8), on_missing="raise")
    with pytest.raises(ValueError, match="must be 'empty' or 'raise'"):
        client.seek_bytes("d", keys_of(2), on_missing="zeros")  # type: ignore[arg-type]


def test_a_malformed_answer_names_its_shard(new_client: NewClient, new_peer: NewPeer) -> None:
    def answer(frame: Frame) -> bytes:
        return encode_response_frame(frame.correlation_id, bytes.fromhex("0a05 0800 1201"))

    client = new_client(conf_of([[new_peer(answer).endpoint]]))
    with pytest.raises(ShardError, match=r"shard 0 .*malformed answer") as caught:
        client.seek_bytes("d", keys_of(2))
    assert isinstance(caught.value.__cause__, WireError)


def test_answers_of_two_versions_are_asked_again(new_client: NewClient, new_peer: NewPeer) -> None:
    """The second shard switches in between; what counts is its second answer."""
    answers = iter([({1: b"old"}, "1_1"), ({1: b"newer"}, "2_2")])

    def switching(frame: Frame) -> bytes:
        values, version = next(answers)
        return answer_with(values, version)(frame)

    first = new_peer(answer_with({0: b"zero"}, "2_2"))
    client = new_client(conf_of([[first.endpoint], [new_peer(switching).endpoint]]))
    result = client.seek_bytes("d", keys_of(0, 1))
    assert (values_of(result), result.version) == ([b"zero", b"newer"], "2_2")
