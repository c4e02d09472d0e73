"""The fake cluster for users' own tests: rows, versions and faults as with real servers."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from cube_api import (
    AsyncCubeClient,
    CubeClient,
    RpcError,
    SeekTimeoutError,
    ShardError,
    VersionNotLoadedError,
)
from cube_api.testing import FakeCluster
from cube_core.wire.prpc_blocking import BlockingConnection

KEYS = np.arange(12, dtype=np.uint64)
ROWS = np.arange(36, dtype=np.float32).reshape(12, 3)


def test_rows_are_those_given() -> None:
    with FakeCluster(KEYS, ROWS, shard_num=3) as cluster, CubeClient(cluster.conf()) as cube:
        result = cube.seek("fake", np.array([7, 99, 0], np.uint64))
        assert result.status.tolist() == [0, -1, 0]
        np.testing.assert_array_equal(result.rows, [ROWS[7], [0, 0, 0], ROWS[0]])
        assert result.version == "1_1"


async def test_for_the_async_client_too() -> None:
    keys = np.array([-5, 3], np.int64)
    with FakeCluster(keys, ROWS[:2], dict_name="d", version="20_20") as cluster:
        async with AsyncCubeClient(cluster.conf()) as cube:
            result = await asyncio.wait_for(cube.seek("d", keys), 20)
    assert (result.status.tolist(), result.version) == ([0, 0], "20_20")


def test_a_version_switch() -> None:
    with FakeCluster(KEYS, ROWS, shard_num=2) as cluster, CubeClient(cluster.conf()) as cube:
        cluster.switch(KEYS, ROWS + 1, "2_2", shard=0)
        mixed = cube.seek("fake", KEYS)
        expected = ROWS if mixed.version == "1_1" else ROWS + 1
        np.testing.assert_array_equal(mixed.rows, expected)
        cluster.switch(KEYS, ROWS + 1, "2_2", shard=1)
        np.testing.assert_array_equal(cube.seek("fake", KEYS).rows, ROWS + 1)
        np.testing.assert_array_equal(cube.seek("fake", KEYS, version="1_1").rows, ROWS)
        with pytest.raises(VersionNotLoadedError):
            cube.seek("fake", KEYS, version="3_3")


def test_faults() -> None:
    with (
        FakeCluster(KEYS, ROWS, replicas=2) as cluster,
        CubeClient(cluster.conf(timeout=300, backup_request=20)) as cube,
    ):
        cluster.kill(0, 0)
        assert not cube.seek("fake", KEYS).status.any()
        cluster.kill(0, 1)
        with pytest.raises(ShardError):
            cube.seek("fake", KEYS)
        cluster.revive(0, 0)
        assert not cube.seek("fake", KEYS).status.any()
        cluster.hang(0, 0)
        with pytest.raises(SeekTimeoutError):
            cube.seek("fake", KEYS)
        cluster.hang(0, 0, hangs=False)
        cluster.delay(0, 0, delay_ms=5)
        assert not cube.seek("fake", KEYS).status.any()
        assert cluster.requests_num(0, 0) >= 3


def test_another_dict_is_refused() -> None:
    with FakeCluster(KEYS, ROWS, dict_name="a") as cluster:
        conf = {"b": cluster.conf()["a"].model_copy(update={"dict_name": "b"})}
        with CubeClient(conf) as cube, pytest.raises(VersionNotLoadedError, match="dict 'b'"):
            cube.seek("b", KEYS)


def test_other_methods_are_refused() -> None:
    with FakeCluster(KEYS, ROWS) as cluster:
        endpoint = cluster.conf()["fake"].replicas()[0][0]
        connection = BlockingConnection(endpoint)
        try:
            with pytest.raises(RpcError, match=r"knows no ControlService\.cmd"):
                connection.call("ControlService", "cmd", b"", timeout_s=10)
        finally:
            connection.close()


def test_values_of_any_width() -> None:
    values = [b"a" * (1 + 3 * number) for number in range(len(KEYS))]
    with FakeCluster(KEYS, values, shard_num=2) as cluster, CubeClient(cluster.conf()) as cube:
        result = cube.seek_bytes("fake", KEYS)
        assert [result.value(i).tobytes() for i in range(len(KEYS))] == values
        cluster.switch(KEYS, values[::-1], "2_2")
        assert cube.seek_bytes("fake", KEYS[:1]).value(0).tobytes() == values[-1]
        with pytest.raises(ValueError, match="do not fit each other"):
            cluster.switch(KEYS, values[1:], "3_3")


def test_what_does_not_fit_is_refused_and_leaves_nothing() -> None:
    before = threading.active_count()
    with pytest.raises(ValueError, match="do not fit each other"):
        FakeCluster(KEYS, ROWS[:2])
    with pytest.raises(ValueError, match="must be at least 1"):
        FakeCluster(KEYS, ROWS, replicas=0)
    assert threading.active_count() == before
