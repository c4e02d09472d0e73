"""Instances to inputs: ids slot by slot, pooling, joining and cutting."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr_serving.feeds import Feed, joined, parts, rows_of, signature
from ctr_serving.ops import Ragged, pooled
from ctr_serving.ops._instances import parse_instances
from cube_core.errors import PredictionError
from tests.ctr.op_bench import request_of


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.sampled_from(["sum", "mean"]),
)
@settings(max_examples=50, deadline=None)
def test_pooling(counts: list[int], how: Any) -> None:
    rng = np.random.default_rng(len(counts))
    values = rng.normal(size=(sum(counts), 3)).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = pooled(Ragged(values, offsets), how)
    for row in range(len(counts)):
        mine = values[offsets[row] : offsets[row + 1]]
        wanted = mine.sum(axis=0) / (max(len(mine), 1) if how == "mean" else 1)
        np.testing.assert_allclose(found[row], wanted, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_instances_tell_the_ids_of_each_slot(counts: list[list[int]]) -> None:
    payload, by_slot, dense = request_of(counts, seed=sum(map(sum, counts)))
    instances = parse_instances(payload, 100)
    np.testing.assert_array_equal(instances.dense, dense)
    for slot in range(2):
        ids, offsets = instances.slot(slot)
        found = [ids[begin:end].tolist() for begin, end in pairwise(offsets)]
        assert found == [row[slot] for row in by_slot]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_feeds_are_joined_and_cut_without_loss(sizes: list[int], rows_max: int) -> None:
    feeds: list[Feed] = []
    for index, size in enumerate(sizes):
        counts = np.random.default_rng(index).integers(0, 3, size)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        ids = np.arange(offsets[-1]) + 100 * index
        feeds.append({"ids": Ragged(ids, offsets), "dense": np.full((size, 2), index)})
    together = joined(feeds)
    assert rows_of(together) == sum(sizes)
    assert signature(together) == signature(feeds[0])
    cut = list(parts(together, sum(sizes), rows_max))
    assert max(map(rows_of, cut)) <= rows_max
    again: Any = joined(cut)
    wanted: Any = together
    np.testing.assert_array_equal(again["ids"].values, wanted["ids"].values)
    np.testing.assert_array_equal(again["ids"].offsets, wanted["ids"].offsets)
    np.testing.assert_array_equal(again["dense"], wanted["dense"])


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        ({"x": [1.0, 2.0]}, "input 'x': is list, not an array [n, …]"),
        ({"x": np.float32(1)}, "input 'x': is float32, not an array [n, …]"),
        ({"x": Ragged([1.0], np.array([0, 1]))}, "input 'x': its values are list, not an array"),  # type: ignore[arg-type]
        ({"x": Ragged(np.ones(1), [0, 1])}, "input 'x': its offsets are no array int64[n + 1]"),  # type: ignore[arg-type]
        ({"x": Ragged(np.ones(1), np.array([0.0, 1.0]))}, "its offsets are no array int64[n + 1]"),
        ({"x": Ragged(np.ones(2), np.array([0, 1]))}, "its offsets do not go from 0 to 2"),
        ({"x": Ragged(np.ones(2), np.array([0, 3, 1, 2], np.uint64))}, "do not go from 0 to 2"),
        ({7: np.ones(1)}, "input 7: its name is int, not str"),
        ({"x": np.ones(1), "y": np.ones(2)}, "different numbers of instances: {'x': 1, 'y': 2}"),
        ({}, "different numbers of instances: {}"),
    ],
)
def test_what_is_no_feed_is_named(feed: Any, message: str) -> None:
    with pytest.raises(PredictionError) as raised:
        rows_of(feed)
    assert message in str(raised.value)
