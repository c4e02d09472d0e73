"""What a shard server counts, as brpc's `/vars` page of the original names and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from cube_server.counters import Counts
from cube_server.loaded import LoadedTable


def variables_text(
    counts: Counts, current: Sequence[LoadedTable | None], uptime_s: float, names: str = ""
) -> str:
    """`name : value` lines, sorted.

    Args:
        current: the current version of each dict.
        names: those wanted, with `*` and `?`, between commas; "" for all.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()] or ["*"]
    return "".join(
        f"{name} : {value}\n"
        for name, value in sorted(_variables(counts, current, uptime_s).items())
        if any(fnmatchcase(name, pattern) for pattern in wanted)
    )


def _variables(
    counts: Counts, current: Sequence[LoadedTable | None], uptime_s: float
) -> dict[str, int]:
    loaded = [each for each in current if each is not None]
    requests = counts["requests"]
    return {
        "request_num": requests,
        "keys_num": counts["keys"],
        "keys_per_request_num": round(counts["keys"] / requests) if requests else 0,
        "unfound_key_num": counts["missing_keys"],
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
