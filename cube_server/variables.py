"""What a shard server counts, as brpc's `/vars` page of the original names and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cube_server.counters import Counts
from cube_server.history import MINUTE_S, History
from cube_server.loaded import LoadedTable

KEYS_WINDOW_S = 10.0
"""Over which the keys of a request are averaged, as brpc does."""


def variables_text(
    counts: Counts,
    history: History,
    current: Sequence[LoadedTable | None],
    uptime_s: float,
    names: str = "",
) -> str:
    """`name : value` lines, sorted.

    Args:
        current: the current version of each dict.
        names: those wanted, with `*` and `?`, between commas; "" for all.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()] or ["*"]
    return "".join(
        f"{name} : {value}\n"
        for name, value in sorted(_variables(counts, history, current, uptime_s).items())
        if any(fnmatchcase(name, pattern) for pattern in wanted)
    )


def _variables(
    counts: Counts, history: History, current: Sequence[LoadedTable | None], uptime_s: float
) -> dict[str, int]:
    loaded = [each for each in current if each is not None]
    requests = counts["requests"]
    lately = history.grown(counts, KEYS_WINDOW_S)
    minute = history.grown(counts, MINUTE_S)
    return {
        "request_num": requests,
        "request_num_minute": minute["requests"],
        "total_key_num": counts["keys"],
        "total_key_num_minute": minute["keys"],
        "keys_per_request_num": round(lately["keys"] / max(lately["requests"], 1)),
        "unfound_key_num": counts["missing_keys"],
        "unfound_key_num_minute": minute["missing_keys"],
        "error_num": counts["errors"],
        "request_bytes": counts["request_bytes"],
        "response_bytes": counts["response_bytes"],
        "seek_latency_avg_us": counts["latency_sum_ns"] // 1000 // max(requests, 1),
        "connection_count": counts.get("connections", 0),
        "data_load_time": round(sum(each.load_s for each in loaded) * 1000),
        "data_size": sum(each.table.file_bytes for each in loaded),
        "data_keys": sum(each.table.key_count for each in loaded),
        "process_uptime": round(uptime_s),
    }
