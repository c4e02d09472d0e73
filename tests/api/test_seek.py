"""Seeks against healthy servers: rows and status of every key, in the order asked."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_api import CubeClient, SeekResult
from cube_core._native import Frame
from cube_core.errors import ConfError, SeekError
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import answer_with, client_of, conf_of, expected_rows
from tests.prpc_peer import LoopThread, Peer

U64_MAX = 2**64 - 1


def keys_of(*keys: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.array(keys, np.uint64)


def test_found_missing_and_duplicate_keys(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    keys = keys_of(7, 1000, 2, 7, U64_MAX, 0)
    result = client.seek("d", keys)
    rows, status = result
    assert status.tolist() == [0, -1, 0, 0, -1, 0]
    assert rows.dtype == np.float32
    found = status == 0
    np.testing.assert_array_equal(rows[found], expected_rows(keys[found], "1_1"))
    assert not rows[~found].any()
    assert result.version == "1_1"


@pytest.mark.parametrize("shard_num", range(1, 8))
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_equals_a_dict(
    kind: str, shard_num: int, server_thread: LoopThread, client_thread: LoopThread
) -> None:
    values: dict[int, bytes] = {}
    answer = answer_with(values)
    peers = [Peer(server_thread, answer) for _ in range(shard_num)]
    number = st.integers(0, 40) | st.integers(0, U64_MAX) | st.just(U64_MAX)

    @settings(max_examples=40, deadline=None)
    @given(keys=st.lists(number, max_size=60), others=st.sets(number), present=st.data())
    def check(keys: list[int], others: set[int], present: st.DataObject) -> None:
        kept = present.draw(st.sets(st.sampled_from(sorted({*keys, *others, 0}))))
        values.clear()
        values.update({k: np.array([k % 997, -0.5], np.float32).tobytes() for k in kept})
        result = client.seek("d", keys_of(*keys), dim=2)
        assert result.status.tolist() == [0 if k in values else -1 for k in keys]
        model = [np.frombuffer(values.get(k, bytes(8)), np.float32) for k in keys]
        np.testing.assert_array_equal(result.rows, np.array(model).reshape(len(keys), 2))

    try:
        with client_of(kind, client_thread, conf_of([[p.endpoint] for p in peers])) as client:
            check()
    finally:
        for peer in peers:
            peer.stop()


def test_int64_keys_are_twos_complement(new_client: NewClient, new_peer: NewPeer) -> None:
    row = np.array([1.5], np.float32)
    peer = new_peer(answer_with({U64_MAX: row.tobytes()}))
    client = new_client(conf_of([[peer.endpoint]]))
    rows, status = client.seek("d", np.array([-1, 5], np.int64))
    assert status.tolist() == [0, -1]
    assert rows[:, 0].tolist() == [1.5, 0.0]


def test_keys_may_be_strided_and_read_only(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    keys = np.arange(50, dtype=np.uint64)
    keys.flags.writeable = False
    for view in (keys, keys[::-3]):
        np.testing.assert_array_equal(client.seek("d", view).rows, expected_rows(view, "1_1"))


def test_no_keys_cause_no_traffic(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    result = client.seek("d", keys_of(), dim=4)
    assert (result.rows.shape, result.status.shape, result.version) == ((0, 4), (0,), None)
    assert [peer.connections_num for peer in two_shards] == [0, 0]


def test_only_shards_that_own_a_key_are_asked(
    new_client: NewClient, two_shards: list[Peer]
) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    client.seek("d", keys_of(2, 4))
    assert [peer.requests_num for peer in two_shards] == [1, 0]


def test_servers_are_told_the_time_that_is_left(
    new_client: NewClient, two_shards: list[Peer]
) -> None:
    told_ms: list[int] = []
    sound = two_shards[0].answer

    def answer(frame: Frame) -> bytes:
        told_ms.append(frame.timeout_ms)
        return sound(frame)

    two_shards[0].answer = answer
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards], timeout=60_000))
    client.seek("d", keys_of(2))
    client.seek("d", keys_of(2), timeout_ms=20_000)
    assert 50_000 < told_ms[0] <= 60_000
    assert 10_000 < told_ms[1] <= 20_000


def test_width_of_rows(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    unknown = client.seek("d", keys_of(1000, 1001))
    assert (unknown.rows.shape, unknown.status.tolist()) == ((2, 0), [-1, -1])
    assert client.seek("d", keys_of(1000, 1)).rows.shape == (2, 4)
    assert client.seek("d", keys_of(1000, 1001)).rows.shape == (2, 4)
    assert client.seek("d", keys_of(), dim=None).rows.shape == (0, 4)


def test_a_value_of_another_width_is_told_apart(
    new_client: NewClient, two_shards: list[Peer]
) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    rows, status = client.seek("d", keys_of(1, 1000, 2), dim=5)
    assert status.tolist() == [-2, -1, -2]
    assert rows.shape == (3, 5)
    assert not rows.any()


def test_a_value_that_is_no_float32_row(new_client: NewClient, new_peer: NewPeer) -> None:
    peer = new_peer(answer_with({1: b"12345"}))
    client = new_client(conf_of([[peer.endpoint]]))
    with pytest.raises(SeekError, match=r"a value of 5 bytes is no row of float32"):
        client.seek("d", keys_of(1))
    assert client.seek("d", keys_of(1), dim=1).status.tolist() == [-2]


def test_all_shards_behind_one_node(new_client: NewClient, new_peer: NewPeer) -> None:
    values = {key: np.array([key], np.float32).tobytes() for key in range(10)}
    peer = new_peer(answer_with(values))
    nodes = [{"ip": "127.0.0.1", "port": peer.port}]
    client = new_client(conf_of([[]] * 3, type="ipport_parallel", nodes=nodes))
    rows, _ = client.seek("d", np.arange(10, dtype=np.uint64))
    assert rows[:, 0].tolist() == list(range(10))
    assert (peer.requests_num, peer.connections_num) == (3, 1)


def test_host_names_are_resolved(new_client: NewClient, two_shards: list[Peer]) -> None:
    nodes = [{"ip": "localhost", "port": peer.port} for peer in two_shards]
    client = new_client(conf_of([[]] * 2, type="ipport", nodes=nodes))
    assert client.seek("d", keys_of(1, 2)).status.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("keys", "error", "problem"),
    [
        (np.array([1.0]), TypeError, "uint64 or int64, not float64"),
        (np.array([1], np.int32), TypeError, "not int32"),
        (np.array([[1]], np.uint64), ValueError, r"not of shape \(1, 1\)"),
        ([1, 2], TypeError, "not list"),
    ],
)
def test_keys_of_another_kind(
    new_client: NewClient,
    two_shards: list[Peer],
    keys: object,
    error: type[Exception],
    problem: str,
) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    with pytest.raises(error, match=problem):
        client.seek("d", keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [{"dim": 0}, {"timeout_ms": 0}, {"version": ""}])
def test_arguments_out_of_range(
    new_client: NewClient, two_shards: list[Peer], limits: dict[str, int]
) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    with pytest.raises(ValueError, match="must"):
        client.seek("d", keys_of(1), **limits)  # type: ignore[arg-type]


def test_an_unknown_dict_is_named_with_those_there_are(new_client: NewClient) -> None:
    client = new_client(conf_of([[]], type="ipport", nodes=[{"ip": "h", "port": 1}]))
    with pytest.raises(ConfError, match=r"dict_name 'e': is not in it; it has: d"):
        client.seek("e", keys_of(1))


def test_reads_cube_conf_and_names_its_faults(tmp_path: Path, two_shards: list[Peer]) -> None:
    path = tmp_path / "cube.conf"
    nodes = ",".join(f'{{"ip": "127.0.0.1", "port": {peer.port}}}' for peer in two_shards)
    path.write_text(f'[{{"dict_name": "d", "shard": 2, "timeout": 2000, "nodes": [{nodes}]}}]')
    with CubeClient(path) as client:
        assert client.dicts["d"].timeout_ms == 2000
        assert client.seek("d", keys_of(3)).status.tolist() == [0]
    path.write_text('[{"dict_name": "d"}]')
    with pytest.raises(ConfError, match=r"cube\.conf: 0\.shard"):
        CubeClient(path)


def test_a_result_is_a_pair_that_can_be_pickled() -> None:
    result = SeekResult(np.ones((2, 3), np.float32), np.zeros(2, np.int32), "1_1")
    copy = pickle.loads(pickle.dumps(result))  # noqa: S301
    assert len(copy) == 2
    assert (copy.rows.tolist(), copy.status.tolist(), copy.version) == (
        [[1.0] * 3] * 2,
        [0, 0],
        "1_1",
    )
    assert repr(copy) == "SeekResult(rows=float32[2, 3], version='1_1')"


def test_a_closed_client_says_so(new_client: NewClient, two_shards: list[Peer]) -> None:
    client = new_client(conf_of([[peer.endpoint] for peer in two_shards]))
    client.close()
    with pytest.raises(SeekError, match="the client is closed"):
        client.seek("d", keys_of(1))
