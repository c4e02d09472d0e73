"""What two readings of a server say of the time between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core.errors import RpcError
from cube_transfer.page.history import History
from cube_transfer.page.readings import (
    Reading,
    added,
    ctr_reading,
    missing_by_slot,
    percentile,
    rates_between,
    server_reading,
)

SERVER = {
    "dicts": {
        "d": {
            "versions": [
                {"version": "2_2", "role": "current", "key_count": 7, "memory_bytes": 100},
                {"version": "1_1", "role": "previous", "key_count": 6, "memory_bytes": 90},
            ]
        }
    },
    "counters": {"requests": 10, "keys": 50, "latency_us_10": 8, "latency_us_more": 2, "x": 1},
}
CTR = {
    "engines": [{"dict_name": "d", "model": {"version": "2_2"}, "cache": {"hits": 3, "misses": 1}}],
    "requests": {"ok": 9, "failed": 1},
    "rows": 20,
    "missing_keys_by_slot": [0, 5],
    "stage_seconds": {"seek": {"0.001": 4, "+Inf": 0, "sum": 0.002}},
}


def test_what_a_shard_server_tells() -> None:
    reading = server_reading(SERVER, "d", 1.0)
    assert reading.version == "2_2"
    assert reading.facts == {"keys": 7, "memory_bytes": 190, "loaded": ["2_2", "1_1"]}
    assert reading.counts == {"requests": 10, "keys": 50, "x": 1}
    assert reading.latencies == {"seek": {1e-5: 8, float("inf"): 2}}
    assert server_reading(SERVER, "other", 1.0).version == ""


def test_what_a_ctr_server_tells() -> None:
    reading = ctr_reading(CTR, "d", 1.0)
    assert reading.version == "2_2"
    assert reading.counts["failed"] == 1
    assert reading.counts["cache_hits"] == 3
    assert reading.latencies == {"seek": {0.001: 4, float("inf"): 0}}


@pytest.mark.parametrize(
    ("problems", "told"),
    [
        ({}, ""),
        ({"problem": "is missing"}, "is missing"),
        ({"problem": "is missing", "source_problem": "no connection"}, "no connection"),
    ],
)
def test_why_a_ctr_server_has_not_the_newest_model(problems: dict[str, str], told: str) -> None:
    answer = {**CTR, "engines": [{"dict_name": "d", **problems}]}
    assert ctr_reading(answer, "d", 1.0).facts["problem"] == told


@pytest.mark.parametrize("answer", [None, [], {}, {"dicts": 1, "counters": {}}, "x"])
def test_what_is_no_answer(answer: object) -> None:
    for read in (server_reading, ctr_reading):
        with pytest.raises(RpcError, match="none of this service"):
            read(answer, "d", 0.0)


def reading(at_s: float, **counts: float) -> Reading:
    return Reading(at_s, "1_1", {}, counts, {"seek": {0.1: counts["requests"]}})


def test_rates() -> None:
    rates = rates_between(reading(1.0, requests=10, keys=100), reading(3.0, requests=14, keys=120))
    assert rates is not None
    assert rates.a_second == {"requests": 2.0, "keys": 10.0}
    assert rates.latencies == {"seek": {0.1: 4}}
    assert rates.share("requests", "keys") == 0.2
    assert rates.share("requests", "nothing") is None
    assert added([rates, rates]).a_second == {"requests": 4.0, "keys": 20.0}
    assert added([rates, rates]).latencies == {"seek": {0.1: 8}}


def test_a_server_that_started_anew_has_no_rates() -> None:
    assert rates_between(reading(1.0, requests=10), reading(3.0, requests=4)) is None
    assert rates_between(reading(1.0, requests=1), reading(1.0, requests=4)) is None
    another = replace(reading(3.0, requests=14), started_at_s=2.0)
    assert rates_between(reading(1.0, requests=10), another) is None


def test_percentiles() -> None:
    assert percentile({}, 0.5) is None
    assert percentile({0.1: 0}, 0.5) is None
    assert percentile({1.0: 10, 2.0: 10}, 0.5) == 1.0
    assert percentile({1.0: 10, 2.0: 10}, 0.75) == 1.5
    assert percentile({1.0: 1, float("inf"): 9}, 0.99) == 1.0


@given(st.dictionaries(st.floats(0.001, 10), st.integers(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_in_a_bucket_with_values(
    histogram: dict[float, float], share: float
) -> None:
    found = percentile(histogram, share)
    bounds = [bound for bound, count in histogram.items() if count]
    assert (found is None) == (not bounds)
    if found is not None:
        assert 0 <= found <= max(bounds) * (1 + 1e-9)


def test_missing_keys_by_slot() -> None:
    before = Reading(0.0, "", {}, {"rows": 100}, {}, [1, 1])
    after = Reading(9.0, "", {}, {"rows": 300}, {}, [1, 21, 4])
    assert missing_by_slot(before, after) == [0.0, 10.0, 2.0]
    assert missing_by_slot(after, before) == []


def test_history_is_bounded_and_keeps_gaps() -> None:
    history = History(interval_s=5, window_s=20)
    history.add({"a": 1.0}, at_s=0)
    history.add({"b": 12345.678}, at_s=5)
    assert history.points("a") == [1.0, None]
    assert history.points("b") == [None, 12350.0]
    copied = history.copy()
    for number in range(5):
        history.add({"a": float(number)}, at_s=10 + 5 * number)
    assert history.times_s() == [15, 20, 25, 30]
    assert history.points("a") == [1.0, 2.0, 3.0, 4.0]
    assert history.points("b") == [None] * 4
    assert history.points("c") == []
    assert history.coarse("a", 2) == [2.0, 4.0]
    assert history.coarse("a", 3) == [2.0, 4.0]
    assert history.coarse("a", 9) == [1.0, 2.0, 3.0, 4.0]
    assert copied.times_s() == [0, 5]
