"""The pairs of a pass between input and tables: in memory, on disk, or some here and some there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_builder import build
from cube_builder.memory import RESERVED_MB, MemoryBound, group_limits
from cube_core._native import ShardPairs
from cube_core.errors import BuildError
from cube_core.versions import Version
from tests.builder.passes import job, random_part, tree


def _key(pair: tuple[int, bytes]) -> int:
    return pair[0]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shard_num=st.sampled_from([1, 2, 7, 1000]),
    width=st.sampled_from([0, 1, 40]),
    batches=st.lists(
        st.tuples(st.integers(0, 200), st.sampled_from([0, 500, 5000, 2**40])), max_size=6
    ),
    key_max=st.sampled_from([20, 2**64 - 1]),
    seed=st.integers(0, 1000),
)
def test_a_shard_is_what_came_for_it_and_equal_keys_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory,
    shard_num: int,
    width: int,
    batches: list[tuple[int, int]],
    key_max: int,
    seed: int,
) -> None:
    directory = tmp_path_factory.mktemp("spill")
    draw = np.random.default_rng(seed)
    expected: dict[int, list[tuple[int, bytes]]] = {}
    pairs = ShardPairs(str(directory), shard_num, width)
    for count, bytes_max in batches:
        keys = draw.integers(0, key_max, count, dtype=np.uint64, endpoint=True)
        widths = draw.integers(0, 50, count) if width == 0 else np.full(count, width)
        offsets = np.concatenate(([0], np.cumsum(widths))).astype(np.int64)
        values = draw.integers(0, 256, int(offsets[-1]), dtype=np.uint8)
        if width == 0:
            pairs.add(keys, values, offsets)
        else:
            pairs.add(keys, values.reshape(count, width))
        for i, key in enumerate(keys.tolist()):
            value = values[offsets[i] : offsets[i + 1]].tobytes()
            expected.setdefault(key % shard_num, []).append((key, value))
        pairs.keep_in_memory(bytes_max)
    by_count, by_heap = pairs.largest()
    assert by_count[1] == max(map(len, expected.values()), default=0)
    heaps = [sum(len(value) for _, value in shard) for shard in expected.values()]
    assert by_heap[2] == (max(heaps, default=0) if width == 0 else 0)
    for shard in range(min(shard_num, 1000)):
        keys, values, widths_taken = pairs.take(shard)
        if widths_taken is not None:
            cuts = np.concatenate(([0], np.cumsum(widths_taken.astype(np.int64))))
            rows = [values[cuts[i] : cuts[i + 1]].tobytes() for i in range(len(keys))]
        else:
            assert values.shape == (len(keys), width)
            rows = [row.tobytes() for row in values]
        taken = list(zip(keys.tolist(), rows, strict=True))
        assert sorted(taken, key=_key) == sorted(expected.get(shard, []), key=_key)
    assert tree(directory) == []


def test_only_what_is_over_the_bound_goes_to_disk(tmp_path: Path) -> None:
    pairs = ShardPairs(str(tmp_path), 4, 8)
    keys = np.arange(1000, dtype=np.uint64)
    pairs.add(keys, np.zeros((1000, 8), np.uint8))
    pairs.keep_in_memory(16_000)
    assert tree(tmp_path) == []
    pairs.add(keys[keys % 4 == 2], np.zeros((250, 8), np.uint8))
    pairs.keep_in_memory(16_000)
    # The largest, and one more until half is free.
    assert (tmp_path / "2.keys").stat().st_size == 500 * 8
    assert len(tree(tmp_path)) == 4


def test_memory_that_grows_large_keeps_what_it_held(tmp_path: Path) -> None:
    # Over the size from which memory is mapped, and grown by moving its pages.
    pairs = ShardPairs(str(tmp_path), 1, 64)
    for number in range(12):
        keys = np.arange(number * 100_000, (number + 1) * 100_000, dtype=np.uint64)
        pairs.add(keys, np.repeat(keys, 8).view(np.uint8).reshape(-1, 64))
    keys, values, _ = pairs.take(0)
    assert (np.sort(keys) == np.arange(1_200_000)).all()
    assert (values.view(np.uint64) == keys[:, None]).all()


@pytest.mark.parametrize("kind", ["base", "int8", "delta", "variable"])
def test_a_build_that_spills_makes_the_same_tables(tmp_path: Path, kind: str) -> None:
    for number in range(3):
        random_part(tmp_path / f"pass/part-{number}", 40_000, 40, seed=number)
    made = replace(
        job(tmp_path, shard_num=5),
        quant="int8" if kind == "int8" else "none",
        delta=kind == "delta",
        version=Version.parse("7_8" if kind == "delta" else "7"),
        value_width="variable" if kind == "variable" else "fixed",
    )
    in_memory = build(made)
    # 24,000 records a shard and their index take 2.2 MiB, all of them 5.5.
    assert build(replace(made, memory_mb=RESERVED_MB + 4)) == in_memory


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    one = np.zeros(1, np.uint64)
    rows = ShardPairs(str(tmp_path), 2, 4)
    values = ShardPairs(str(tmp_path), 2, 0)
    with pytest.raises(ValueError, match=r"values must be \[1, 4\]"):
        rows.add(one, np.zeros((1, 5), np.uint8))
    with pytest.raises(ValueError, match="offsets are for values of a width each"):
        rows.add(one, np.zeros(4, np.uint8), np.array([0, 4]))
    with pytest.raises(ValueError, match="offsets are for values of a width each"):
        values.add(one, np.zeros((1, 4), np.uint8))
    with pytest.raises(ValueError, match="more than 65535 bytes"):
        values.add(one, np.zeros(65_536, np.uint8), np.array([0, 65_536]))
    with pytest.raises(ValueError, match="no such shard"):
        rows.take(2)
    for shard_num in (0, 65_536):
        with pytest.raises(ValueError, match="shard_num must be 1 to 65535"):
            ShardPairs(str(tmp_path), shard_num, 4)


def test_what_the_disk_refuses_names_the_file(tmp_path: Path) -> None:
    one = np.zeros(1, np.uint64)
    pairs = ShardPairs(str(tmp_path / "gone"), 2, 4)
    pairs.add(one, np.zeros((1, 4), np.uint8))
    with pytest.raises(FileNotFoundError, match=r"gone/0\.keys"):
        pairs.keep_in_memory(0)
    pairs = ShardPairs(str(tmp_path), 2, 4)
    pairs.add(one, np.zeros((1, 4), np.uint8))
    pairs.keep_in_memory(0)
    (tmp_path / "0.values").write_bytes(b"cut")
    with pytest.raises(OSError, match=r"Input/output error: '.*0\.values'"):
        pairs.take(0)


def test_what_is_kept_leaves_room_for_the_largest_shard() -> None:
    bound = MemoryBound(RESERVED_MB + 1, 3, 40)
    assert bound.left_beside(0, 0) == 1 << 20
    assert bound.left_beside(0, 1000) == (1 << 20) - 1000 * 72
    with pytest.raises(BuildError, match="shard 2 has 20000 records or more"):
        bound.left_beside(2, 20_000)
    whole_machine = MemoryBound(None, 3, 40).left_beside(0, 1)
    assert 0 <= whole_machine < MemoryBound(1 << 20, 3, 40).left_beside(0, 1)


def test_the_control_group_bounds_memory(tmp_path: Path) -> None:
    own = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
    group = tmp_path / own
    group.mkdir(parents=True, exist_ok=True)
    assert list(group_limits(tmp_path)) == []
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5000\n")
    assert list(group_limits(tmp_path)) == []
    (group / "memory.max").write_text("1073741824\n")
    assert list(group_limits(tmp_path)) == [(1 << 30, 5000)]
