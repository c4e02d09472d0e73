"""Keys that a measurement asks for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_api.cli.key_batches import Distribution, draw_batches, zipf


@pytest.mark.parametrize("exponent", [0.5, 0.99, 1.0, 1.5])
def test_zipf_keys_come_as_often_as_the_law_says(exponent: float) -> None:
    count, key_space = 200_000, 50
    keys = zipf(np.random.default_rng(5), count, key_space, exponent)
    weights = np.arange(1, key_space + 1) ** -exponent
    expected = count * weights / weights.sum()
    seen = np.bincount(keys.astype(np.int64), minlength=key_space)
    # Chi-squared with 49 degrees of freedom: over 100 once in a hundred thousand times.
    assert ((seen - expected) ** 2 / expected).sum() < 100


@given(
    count=st.integers(1, 300),
    key_space=st.integers(1, 1 << 52),
    exponent=st.floats(0.01, 10),
    seed=st.integers(0, 1000),
)
@settings(max_examples=100)
def test_zipf_keys_are_below_the_key_space(
    count: int, key_space: int, exponent: float, seed: int
) -> None:
    keys = zipf(np.random.default_rng(seed), count, key_space, exponent)
    assert keys.shape == (count,)
    assert keys.dtype == np.uint64
    assert int(keys.max()) < key_space


@pytest.mark.parametrize("distribution", Distribution)
def test_batches_are_those_of_the_seed(distribution: Distribution) -> None:
    def draw(seed: int) -> np.ndarray:
        return draw_batches(distribution, key_space=10, batch=3, zipf_exponent=1, seed=seed)

    assert draw(1).shape[1] == 3
    assert (draw(1) == draw(1)).all()
    assert (draw(1) != draw(2)).any()
    assert set(np.unique(draw(1))) == set(range(10))


def test_a_huge_batch_is_drawn_once() -> None:
    batches = draw_batches(
        Distribution.UNIFORM, key_space=1 << 40, batch=1 << 24, zipf_exponent=1, seed=1
    )
    assert batches.shape == (1, 1 << 24)
