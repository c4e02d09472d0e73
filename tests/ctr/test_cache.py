"""The cache of hot keys: what it answers is what the source would have answered, pass by pass."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ctr_serving.cached_source import CACHE_NAME, CachedSource, cache_status, fill_caches
from cube_api import STATUS_FAILED, STATUS_FOUND, STATUS_MISSING, STATUS_WRONG_WIDTH, SeekResult
from cube_core._native import RowCache, SequenceFileWriter
from cube_core.errors import ShardError
from tests.ctr.models import direct_probabilities, embedding, publish, requests_of
from tests.ctr.service import Shards, ctr_running, write_conf, write_tables
from tests.waiting import wait_until

DIM = 3
MB = 1 << 20


def rows_of(keys: NDArray[Any], version: str = "1_1") -> NDArray[np.float32]:
    """What the source has: every key but the multiples of 7."""
    scale = np.float32(version.partition("_")[0])
    rows: NDArray[np.float32] = (keys.astype(np.int64)[:, None] * DIM + np.arange(DIM)).astype(
        np.float32
    ) * scale
    rows[keys % 7 == 0] = 0
    return rows


def status_of(keys: NDArray[Any]) -> NDArray[np.int32]:
    return np.where(keys % 7 == 0, STATUS_MISSING, STATUS_FOUND).astype(np.int32)


# ------------------------------------------------------------------------------ the kernel


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 400), max_size=40), max_size=20), st.integers(0, 40_000))
def test_a_full_cache_forgets_keys_but_never_mixes_them(
    batches: list[list[int]], capacity_bytes: int
) -> None:
    cache = RowCache(capacity_bytes, DIM)
    for batch in batches:
        keys = np.array(batch, np.uint64)
        rows = np.full((len(keys), DIM), np.nan, np.float32)
        status = np.full(len(keys), 99, np.int32)
        unknown = cache.get(keys, rows, status)
        assert (status[unknown] == 99).all()
        known = np.setdiff1d(np.arange(len(keys)), unknown)
        np.testing.assert_array_equal(rows[known], rows_of(keys[known]))
        np.testing.assert_array_equal(status[known], status_of(keys[known]))
        asked = keys[unknown]
        cache.fill(keys, unknown, rows_of(asked), status_of(asked), rows, status)
        np.testing.assert_array_equal(rows, rows_of(keys))
        np.testing.assert_array_equal(status, status_of(keys))
        cache.put(keys, rows_of(keys), status_of(keys))
    assert len(cache) <= cache.capacity
    hot = cache.hot_keys(1000)
    assert len(np.unique(hot)) == len(hot)
    assert set(hot.tolist()) <= {key for batch in batches for key in batch if key % 7}


def test_what_is_asked_for_again_outlives_what_is_asked_for_once() -> None:
    cache = RowCache(64 << 10, DIM)
    hot = np.arange(1, cache.capacity // 8, dtype=np.uint64)
    cache.put(hot, rows_of(hot), status_of(hot))
    rows, status = np.empty((len(hot), DIM), np.float32), np.empty(len(hot), np.int32)
    for begin in range(10_000, 10_000 + 20 * cache.capacity, cache.capacity // 4):
        assert len(cache.get(hot, rows, status)) < len(hot) // 5
        cold = np.arange(begin, begin + cache.capacity // 4, dtype=np.uint64)
        cache.put(cold, rows_of(cold), status_of(cold))
        cache.put(hot, rows_of(hot), status_of(hot))


def test_failed_keys_and_values_of_another_width_are_not_kept() -> None:
    cache = RowCache(MB, DIM)
    keys = np.arange(4, dtype=np.uint64)
    status = np.array([STATUS_FOUND, STATUS_MISSING, STATUS_WRONG_WIDTH, STATUS_FAILED], np.int32)
    cache.put(keys, np.ones((4, DIM), np.float32), status)
    rows, told = np.empty((4, DIM), np.float32), np.empty(4, np.int32)
    assert cache.get(keys, rows, told).tolist() == [2, 3]
    assert (len(cache), cache.hits, cache.misses) == (2, 2, 2)
    np.testing.assert_array_equal(rows[:2], [[1] * DIM, [0] * DIM])


def test_arrays_of_other_shapes_are_refused() -> None:
    cache = RowCache(MB, DIM)
    keys = np.arange(4, dtype=np.uint64)
    with pytest.raises(ValueError, match="rows must be float32"):
        cache.get(keys, np.empty((4, DIM + 1), np.float32), np.empty(4, np.int32))
    with pytest.raises(ValueError, match="rows must be float32"):
        cache.put(keys, np.empty((4, DIM), np.float32), np.empty(3, np.int32))
    arrays = np.empty((4, DIM), np.float32), np.empty(4, np.int32)
    one = np.empty((1, DIM), np.float32), np.empty(1, np.int32)
    with pytest.raises(ValueError, match="place 4 is not below 4 keys"):
        cache.fill(keys, np.array([4], np.uint32), *one, *arrays)
    with pytest.raises(ValueError, match="rows must be float32"):
        cache.fill(keys, np.array([0, 1], np.uint32), *one, *arrays)
    with pytest.raises(ValueError, match="dim must be"):
        RowCache(MB, 0)


# ------------------------------------------------------------------------------ before a source


class Source:
    """Keeps what it was asked; `down` fails keys over 1000."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.log_id = 0
        self.down = False

    async def seek(
        self,
        dict_name: str,
        keys: Any,
        *,
        version: str,
        dim: int,
        on_failure: str = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        assert dict_name == "d"
        assert dim == DIM
        self.asked.append(keys.tolist())
        self.log_id = log_id
        rows, status = rows_of(keys, version), status_of(keys)
        if self.down and (keys > 1000).any():
            if on_failure == "raise":
                raise ShardError("down")
            rows[keys > 1000] = 0
            status[keys > 1000] = STATUS_FAILED
            return SeekResult(rows, status, version, (ShardError("down"),))
        return SeekResult(rows, status, version)

    async def prepare(self, dict_name: str, version: str, dim: int) -> object:
        return f"kept {version}"


def told(held: object) -> dict[str, Any]:
    status = cache_status(held)
    assert status is not None
    return status


def keys_of(*keys: int) -> NDArray[np.int64]:
    return np.array(keys, np.int64)


async def test_only_what_is_not_cached_is_asked() -> None:
    source = Source()
    cached = CachedSource(source, MB)
    held = await cached.prepare("d", "1_1", DIM)
    # The last are every second of a longer array.
    for keys in (keys_of(1, 2, 7), keys_of(2, 9, 7, 1, 9), keys_of(9, 5, 1, 5)[::2]):
        found = await cached.seek("d", keys, version="1_1", dim=DIM, log_id=len(keys))
        np.testing.assert_array_equal(found.rows, rows_of(keys))
        np.testing.assert_array_equal(found.status, status_of(keys))
        assert found.version == "1_1"
    assert source.asked == [[1, 2, 7], [9, 9]]
    assert source.log_id == 5
    assert told(held)["hits"] == 5
    assert told(held)["hit_rate"] == 0.5


async def test_versions_have_caches_of_their_own() -> None:
    source = Source()
    cached = CachedSource(source, MB)
    keys = keys_of(1, 2, 3)
    held = [await cached.prepare("d", version, DIM) for version in ("1_1", "2_2")]
    for version in ("1_1", "2_2", "1_1", "2_2"):
        found = await cached.seek("d", keys, version=version, dim=DIM)
        np.testing.assert_array_equal(found.rows, rows_of(keys, version))
    assert len(source.asked) == 2
    assert await cached.prepare("d", "1_1", DIM) is held[0]
    held.clear()
    gc.collect()
    await cached.seek("d", keys, version="1_1", dim=DIM)
    assert len(source.asked) == 3


async def test_a_failed_shard_is_not_remembered() -> None:
    source = Source()
    cached = CachedSource(source, MB)
    held = await cached.prepare("d", "1_1", DIM)
    source.down = True
    keys = keys_of(1, 2001)
    with pytest.raises(ShardError):
        await cached.seek("d", keys, version="1_1", dim=DIM)
    found = await cached.seek("d", keys, version="1_1", dim=DIM, on_failure="status")
    assert (found.status.tolist(), len(found.errors)) == ([STATUS_FOUND, STATUS_FAILED], 1)
    source.down = False
    found = await cached.seek("d", keys, version="1_1", dim=DIM)
    assert source.asked[-1] == [2001]
    np.testing.assert_array_equal(found.rows, rows_of(keys))
    assert told(held)["problem"] == ""


async def test_many_keys_are_looked_up_off_the_loop() -> None:
    source = Source()
    cached = CachedSource(source, 4 * MB)
    held = await cached.prepare("d", "1_1", DIM)
    keys = np.arange(20_000, dtype=np.int64)
    for _ in range(2):
        found = await cached.seek("d", keys, version="1_1", dim=DIM)
        np.testing.assert_array_equal(found.rows, rows_of(keys))
    assert sum(map(len, source.asked[1:])) < len(keys) // 20
    assert told(held)["hits"] > len(keys) * 0.9


def write_cube_cache(path: Path, keys: list[int], scale: float = 1) -> None:
    values = np.full((len(keys), DIM), scale, np.float32).view(np.uint8)
    with SequenceFileWriter(str(path), dialect="paddle") as writer:
        writer.append(np.array(keys, np.uint64), values)


async def test_keys_beside_a_model_and_hot_ones_are_fetched_before_it_is_served(
    tmp_path: Path,
) -> None:
    (tmp_path / CACHE_NAME).mkdir()
    for number, part in enumerate(([1, 2, 7], [3])):
        write_cube_cache(tmp_path / CACHE_NAME / f"part-0000{number}", part, scale=-5)
    source = Source()
    cached = CachedSource(source, MB)
    before = await cached.prepare("d", "1_1", DIM)
    await cached.seek("d", keys_of(10, 11), version="1_1", dim=DIM)
    held = await cached.prepare("d", "2_2", DIM)
    await fill_caches(tmp_path, [held], before)
    source.asked.clear()
    keys = keys_of(1, 2, 3, 7, 10, 11)
    found = await cached.seek("d", keys, version="2_2", dim=DIM)
    # The rows are those of the source, not those of the file.
    np.testing.assert_array_equal(found.rows, rows_of(keys, "2_2"))
    assert source.asked == []


async def test_a_broken_file_of_keys_is_told_and_does_no_harm(tmp_path: Path) -> None:
    write_cube_cache(tmp_path / CACHE_NAME, [1, 2])
    broken = (tmp_path / CACHE_NAME).read_bytes()
    cached = CachedSource(Source(), MB)
    held = await cached.prepare("d", "1_1", DIM)
    (tmp_path / CACHE_NAME).write_bytes(b"SEQ")
    await fill_caches(tmp_path, held, None)
    assert str(tmp_path / CACHE_NAME) in told(held)["problem"]
    (tmp_path / CACHE_NAME).write_bytes(broken)
    await fill_caches(tmp_path, held, None)
    assert told(held)["problem"] == ""
    assert len(held.cache) == 2


# ------------------------------------------------------------------------------ a predictor


def test_a_predictor_with_a_cache_answers_each_pass_with_its_own_rows(
    shards: Shards, models: dict[int, Path], tmp_path: Path
) -> None:
    if not (shards.data_dirs[0] / "2_2").exists():
        write_tables(shards.data_dirs, "2_2", seed=2)
    write_conf(tmp_path, shards.ports, extra="enable_batch_align: 1 cube_cache_mb: 8")
    publish(tmp_path / "model", models[1])
    ids, dense = requests_of(40, missing=True)
    with ctr_running(tmp_path) as ctr, ctr.client() as client:
        wait_until(lambda: ctr.get("/ready").status_code == 200, what="model 1 served")
        for _ in range(3):
            expected = direct_probabilities(models[1], embedding(ids, seed=1), dense)
            np.testing.assert_allclose(client.predict(ids, dense), expected, atol=1e-5, rtol=0)
        cache = ctr.status()["cache"]
        assert cache["hits"] >= 2 * ids.size
        assert cache["keys"] == len(np.unique(ids))
        assert "ctr_cache_hits_total" in ctr.get("/metrics").text
        shards.serve_version("2_2")
        publish(tmp_path / "model", models[2])
        wait_until(lambda: ctr.model_version() == "2_2", what="model 2 served")
        for _ in range(2):
            expected = direct_probabilities(models[2], embedding(ids, seed=2), dense)
            np.testing.assert_allclose(client.predict(ids, dense), expected, atol=1e-5, rtol=0)
        shards.serve_version("1_1")
