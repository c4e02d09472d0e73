from __future__ import annotations

from cube_server.history import MINUTE_S, SAMPLE_INTERVAL_S, History


def test_windows_end_now_and_begin_at_a_sample() -> None:
    now_s = 1000.0
    history = History(clock=lambda: now_s)
    assert history.grown({"requests": 3}, MINUTE_S) == {"requests": 3}
    for _ in range(40):
        now_s += SAMPLE_INTERVAL_S
        history.add({"requests": int(now_s)})
    now_s += 1
    for window_s in (10.0, MINUTE_S):
        grown = history.grown({"requests": int(now_s)}, window_s)["requests"]
        assert window_s <= grown <= window_s + SAMPLE_INTERVAL_S
    now_s += MINUTE_S
    assert history.grown({"requests": int(now_s)}, 10.0)["requests"] == MINUTE_S + 1
