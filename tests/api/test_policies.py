"""Keys that are missing, failed, of another width or repeated: told apart, as the caller wants."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_api import (
    STATUS_FAILED,
    MissingKeysError,
    SeekError,
    SeekTimeoutError,
    ShardError,
    VersionNotLoadedError,
)
from cube_core._native import Frame, SeekPlan, encode_error_frame
from cube_proto.dict_pb2 import DictRequest
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import answer_with, conf_of, expected_rows
from tests.prpc_peer import Answer, Peer

KEYS = np.array([4, 1000, 7, 1001, 4], np.uint64)
MISSING = np.array([False, True, False, True, False])
DEFAULT_ROW = np.array([0.5, -1, 2, 8], np.float32)


def test_missing_keys_get_the_default_row(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    result = client.seek("d", KEYS, on_missing=DEFAULT_ROW)
    np.testing.assert_array_equal(result.status, np.where(MISSING, -1, 0))
    np.testing.assert_array_equal(result.rows[MISSING], np.stack([DEFAULT_ROW] * 2))
    np.testing.assert_array_equal(result.rows[~MISSING], expected_rows(KEYS[~MISSING], "1_1"))


def test_the_default_row_tells_the_width(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    result = client.seek("d", np.array([1000, 1], np.uint64), on_missing=np.ones(3))
    assert result.status.tolist() == [-1, -2]
    assert result.rows.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_missing_keys_may_be_an_error(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    with pytest.raises(MissingKeysError, match=r"2 keys are missing: 1000, 1001") as raised:
        client.seek("d", KEYS, on_missing="raise")
    np.testing.assert_array_equal(raised.value.keys, KEYS[MISSING])
    many = np.arange(1000, 1100, dtype=np.uint64)
    with pytest.raises(MissingKeysError, match=r"100 keys are missing: 1000, .*1004, …"):
        client.seek("d", many, on_missing="raise")
    assert not client.seek("d", KEYS[~MISSING], on_missing="raise").status.any()


FAILURES: dict[str, tuple[Callable[[Peer], None], type[SeekError]]] = {
    "dead": (lambda peer: peer.stop(), ShardError),
    "late": (lambda peer: setattr(peer, "hold", True), SeekTimeoutError),
    "malformed": (lambda peer: setattr(peer, "answer", lambda _: b"HTTP/1.1 400"), ShardError),
    "refusing": (
        lambda peer: setattr(
            peer,
            "answer",
            lambda frame: encode_error_frame(frame.correlation_id, 2004, "keys_per_request_max"),
        ),
        ShardError,
    ),
}


@pytest.mark.parametrize("fault", FAILURES)
@pytest.mark.parametrize("dim", [None, 4])
def test_a_failed_shard_is_told_by_status(
    new_client: NewClient, two_shards: list[Peer], fault: str, dim: int | None
) -> None:
    break_down, kind = FAILURES[fault]
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards], timeout=300))
    break_down(two_shards[1])
    keys = np.array([4, 1000, 7, 7, 4], np.uint64)
    with pytest.raises(kind, match="shard 1"):
        client.seek("d", keys, dim=dim)
    result = client.seek("d", keys, dim=dim, on_failure="status")
    assert result.status.tolist() == [0, -1, STATUS_FAILED, STATUS_FAILED, 0]
    found = [0, 4]
    np.testing.assert_array_equal(result.rows[found], expected_rows(keys[found], "1_1"))
    assert not result.rows[1:4].any()
    assert result.version == "1_1"
    assert [type(error) for error in result.errors] == [kind]
    assert "shard 1" in str(result.errors[0])
    assert f"127.0.0.1:{two_shards[1].port}" in str(result.errors[0])


def test_all_shards_failed(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards], timeout=300))
    for peer in two_shards:
        peer.stop()
    result = client.seek("d", KEYS, on_failure="status", on_missing=DEFAULT_ROW)
    assert result.status.tolist() == [STATUS_FAILED] * 5
    assert not result.rows.any()
    assert (result.version, len(result.errors)) == (None, 2)
    assert client.seek("d", KEYS, on_failure="status").status.tolist() == [STATUS_FAILED] * 5


def test_a_shard_that_is_late_to_agree_is_failed(new_client: NewClient, new_peer: NewPeer) -> None:
    """Rows of two versions never come together, whatever the policy."""
    row = np.ones(2, np.float32).tobytes()
    versions = ["1_1", "2_2", "2_2"]
    peers = [new_peer(answer_with(dict.fromkeys(range(9), row), version)) for version in versions]
    first = peers[0].answer
    answers: list[Answer] = [first]
    peers[0].answer = lambda frame: answers.pop(0)(frame) if answers else b""
    client = new_client(conf_of([[peer.endpoint] for peer in peers], timeout=300))
    result = client.seek("d", np.arange(6, dtype=np.uint64), on_failure="status")
    assert result.version == "2_2"
    assert result.status.tolist() == [STATUS_FAILED, 0, 0] * 2


def test_a_version_that_is_not_loaded_is_an_error_all_the_same(
    new_client: NewClient, two_shards: list[Peer]
) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    with pytest.raises(VersionNotLoadedError):
        client.seek("d", KEYS, version="9_9", on_failure="status")


@pytest.mark.parametrize(
    ("options", "error", "problem"),
    [
        ({"on_missing": "ones"}, ValueError, "must be 'zeros', 'raise' or a default row"),
        ({"on_missing": [1.0]}, TypeError, "must be 'zeros', 'raise' or a numpy row"),
        ({"on_missing": np.ones((1, 2))}, ValueError, r"not of shape \(1, 2\)"),
        ({"on_missing": np.ones(2), "dim": 3}, ValueError, "vector of dim=3 floats"),
        ({"on_failure": "zeros"}, ValueError, "must be 'raise' or 'status'"),
    ],
)
def test_policies_that_are_none(
    new_client: NewClient,
    two_shards: list[Peer],
    options: dict[str, object],
    error: type[Exception],
    problem: str,
) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    with pytest.raises(error, match=problem):
        client.seek("d", KEYS, **options)  # type: ignore[arg-type]


def test_a_repeated_key_is_asked_for_once(new_client: NewClient, new_peer: NewPeer) -> None:
    values = {key: np.array([key], np.float32).tobytes() for key in range(5)}
    sound = answer_with(values)
    asked: list[int] = []

    def answer(frame: Frame) -> bytes:
        asked.extend(DictRequest.FromString(bytes(frame.payload)).keys)
        return sound(frame)

    peer = new_peer(answer)
    client = new_client(conf_of([[peer.endpoint]]))
    keys = np.array([3, 9, 3, 1, 9, 3], np.uint64)
    result = client.seek("d", keys)
    assert asked == [3, 9, 1]
    assert result.status.tolist() == [0, -1, 0, 0, -1, 0]
    assert result.rows[:, 0].tolist() == [3, 0, 3, 1, 0, 3]


@given(keys=st.lists(st.integers(0, 12) | st.integers(0, 2**64 - 1)), shard_num=st.integers(1, 4))
def test_plans_ask_for_every_key_once(keys: list[int], shard_num: int) -> None:
    plan = SeekPlan(np.array(keys, np.uint64), shard_num)
    asked: list[int] = []
    for shard in plan.shards:
        of_shard = DictRequest.FromString(plan.payload(shard)).keys
        assert all(key % shard_num == shard for key in of_shard)
        assert len(of_shard) == plan.key_count(shard)
        asked += of_shard
    assert sorted(asked) == sorted(set(keys))
    assert asked == sorted(asked, key=lambda key: (key % shard_num, keys.index(key)))


def test_errors_stay_with_a_result_that_is_pickled() -> None:
    error = MissingKeysError("1 keys are missing: 5", np.array([5], np.uint64))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301
