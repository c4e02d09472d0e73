"""Which version a result is of: always exactly one."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cube_api import SeekError, VersionNotLoadedError
from cube_core._native import Frame, Seeker, Table
from tests.api.conftest import NewClient, NewPeer
from tests.api.peers import answer_from, answer_with, conf_of, expected_rows, write_shard
from tests.prpc_peer import Peer

KEYS = np.arange(20, dtype=np.uint64)


class Fleet:
    """Two shards with versions 1_1 and 2_2; `serve` switches one of them."""

    def __init__(self, folder: Path, new_peer: NewPeer) -> None:
        self.tables = [
            {version: write_shard(folder, shard, 2, version) for version in ("1_1", "2_2")}
            for shard in range(2)
        ]
        self.seekers = [Seeker(1 << 20, 64 << 20) for _ in range(2)]
        for shard in range(2):
            self.serve(shard, "1_1", "2_2")
        self.peers: list[Peer] = [new_peer(answer_from(seeker)) for seeker in self.seekers]
        self.conf = conf_of([[peer.endpoint] for peer in self.peers])

    def serve(self, shard: int, current: str, *others: str) -> None:
        tables: dict[str, Table] = self.tables[shard]
        self.seekers[shard].set_tables(tables[current], [tables[other] for other in others])


@pytest.fixture
def fleet(tmp_path: Path, new_peer: NewPeer) -> Fleet:
    return Fleet(tmp_path, new_peer)


@pytest.mark.parametrize("version", ["1_1", "2_2"])
def test_a_pinned_version(new_client: NewClient, fleet: Fleet, version: str) -> None:
    result = new_client(fleet.conf).seek("d", KEYS, version=version)
    assert result.version == version
    np.testing.assert_array_equal(result.rows, expected_rows(KEYS, version))


def test_a_pinned_version_that_is_not_loaded(new_client: NewClient, fleet: Fleet) -> None:
    client = new_client(fleet.conf)
    with pytest.raises(VersionNotLoadedError, match=r"dict 'd' shard [01] .*3_3"):
        client.seek("d", KEYS, version="3_3")
    assert client.seek("d", KEYS).version == "1_1"


@pytest.mark.parametrize(
    ("first", "second", "agreed"),
    [
        # One has switched, both still have both: either version will do.
        (("2_2", "1_1"), ("1_1", "2_2"), {"1_1", "2_2"}),
        # The other does not have the new one yet, or no longer the old one.
        (("2_2", "1_1"), ("1_1",), {"1_1"}),
        (("2_2",), ("1_1", "2_2"), {"2_2"}),
    ],
)
def test_a_switch_under_way(
    new_client: NewClient,
    fleet: Fleet,
    first: tuple[str, ...],
    second: tuple[str, ...],
    agreed: set[str],
) -> None:
    fleet.serve(0, *first)
    fleet.serve(1, *second)
    result = new_client(fleet.conf).seek("d", KEYS)
    assert result.version in agreed
    np.testing.assert_array_equal(result.rows, expected_rows(KEYS, str(result.version)))


def test_a_switch_to_rows_of_another_width(
    new_client: NewClient, new_peer: NewPeer, tmp_path: Path
) -> None:
    old = [write_shard(tmp_path, shard, 2, "1_1", dim=4) for shard in range(2)]
    new = [write_shard(tmp_path, shard, 2, "2_2", dim=6) for shard in range(2)]
    for first, second, dim in [([new[0]], [old[1], new[1]], 6), ([new[0], old[0]], [old[1]], 4)]:
        peers = []
        for tables in (first, second):
            seeker = Seeker(1 << 20, 64 << 20)
            seeker.set_tables(tables[0], tables[1:])
            peers.append(new_peer(answer_from(seeker)))
        result = new_client(conf_of([[peer.endpoint] for peer in peers])).seek("d", KEYS)
        assert not result.status.any()
        np.testing.assert_array_equal(result.rows, expected_rows(KEYS, str(result.version), dim))


def test_shards_that_never_agree(new_client: NewClient, fleet: Fleet) -> None:
    fleet.serve(0, "2_2")
    fleet.serve(1, "1_1")
    client = new_client(fleet.conf)
    with pytest.raises(SeekError, match=r"different versions .*VERSION_ROUNDS_MAX=4"):
        client.seek("d", KEYS)
    assert client.seek("d", KEYS[::2]).version == "2_2"
    fleet.serve(1, "2_2")
    assert client.seek("d", KEYS).version == "2_2"


def test_switches_while_seeks_go_on(new_client: NewClient, fleet: Fleet) -> None:
    """Every result is of one version, whole, and none fails."""
    client = new_client(fleet.conf)
    stopped = threading.Event()

    def switch() -> None:
        now, then = "1_1", "2_2"
        while not stopped.is_set():
            now, then = then, now
            for shard in range(2):
                fleet.serve(shard, now, then)

    switcher = threading.Thread(target=switch)
    switcher.start()
    seen: Counter[str | None] = Counter()
    deadline = time.monotonic() + 60
    try:
        # 300 seeks, and as many more as it takes the switcher to be given its time by the machine.
        while seen.total() < 300 or (len(seen) < 2 and time.monotonic() < deadline):
            result = client.seek("d", KEYS)
            np.testing.assert_array_equal(result.rows, expected_rows(KEYS, str(result.version)))
            seen[result.version] += 1
    finally:
        stopped.set()
        switcher.join()
    assert set(seen) == {"1_1", "2_2"}


def values(version: str) -> dict[int, bytes]:
    return {
        int(k): row.tobytes() for k, row in zip(KEYS, expected_rows(KEYS, version), strict=True)
    }


def old_servers(new_peer: NewPeer, *versions: str | None) -> list[Peer]:
    return [new_peer(answer_with(values("1_1"), version)) for version in versions]


def test_servers_that_name_no_version(new_client: NewClient, new_peer: NewPeer) -> None:
    peers = old_servers(new_peer, None, "")
    client = new_client(conf_of([[peer.endpoint] for peer in peers]))
    result = client.seek("d", KEYS)
    assert result.version is None
    np.testing.assert_array_equal(result.rows, expected_rows(KEYS, "1_1"))
    with pytest.raises(VersionNotLoadedError, match="does not know pinned versions"):
        client.seek("d", KEYS, version="1_1")


def test_servers_that_ignore_a_pin(new_client: NewClient, new_peer: NewPeer) -> None:
    peers = old_servers(new_peer, "1_1", "2_2")
    client = new_client(conf_of([[peer.endpoint] for peer in peers]))
    with pytest.raises(SeekError, match="different versions"):
        client.seek("d", KEYS)
    with pytest.raises(VersionNotLoadedError, match="answered from version '2_2' although '1_1'"):
        client.seek("d", KEYS[1:2], version="1_1")
    assert client.seek("d", KEYS[1:2], version="2_2").version == "2_2"


def test_asked_again_only_as_often_as_needed(new_client: NewClient, fleet: Fleet) -> None:
    asked: list[int] = []
    for shard, peer in enumerate(fleet.peers):

        def counted(frame: Frame, shard: int = shard) -> bytes:
            asked.append(shard)
            return answer_from(fleet.seekers[shard])(frame)

        peer.answer = counted
    client = new_client(fleet.conf)
    client.seek("d", KEYS)
    assert sorted(asked) == [0, 1]
    asked.clear()
    fleet.serve(0, "2_2", "1_1")
    client.seek("d", KEYS)
    assert len(asked) == 3
