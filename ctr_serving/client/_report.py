"""The latency report of the original's client, line by line, and what it does not say."""

from __future__ import annotations

import numpy as np

from ctr_serving.client._load import Tally

_SHARES = (0.5, 0.8, 0.9, 0.99, 0.999)


def report(
    tally: Tally, *, batch_size: int, concurrency: int, repeat: int, profiling: bool
) -> list[str]:
    """Lines for a person to read. "Total time" is the time that a thread waited for answers, the
    mean over all threads, and "QPS" the requests of all threads divided by it."""
    latencies_ms = np.sort(np.array(tally.latencies_ms))
    requests = len(latencies_ms)
    total_ms = float(latencies_ms.sum()) / concurrency
    qps = requests * 1000 / total_ms
    lines = [
        f"Total request : {requests}",
        f"Batch size : {batch_size}",
        f"Max concurrency : {concurrency}",
        f"enable_profiling: {int(profiling)}",
        f"repeat count: {repeat}",
        f"Total time : {total_ms:.3f}ms",
        f"Variance : {latencies_ms.var():.3f}ms",
        f"Max time : {latencies_ms[-1]:.3f}ms",
        f"Min time : {latencies_ms[0]:.3f}ms",
        f"QPS: {qps:.1f}/s",
        "Latency statistics: ",
        f"Mean time : {latencies_ms.mean():.3f}",
    ]
    lines += [
        f"{100 * share:g} percent ms: {latencies_ms[int(requests * share)]:.3f}"
        for share in _SHARES
    ]
    lines.append(f"Rows: {tally.rows}, {qps * tally.rows / requests:.1f}/s")
    if len(tally.requests_by_variant) > 1:
        by_tag = sorted(tally.requests_by_variant.items())
        lines += [f"Variant {tag}: {count} requests" for tag, count in by_tag]
    if tally.messages:
        lines.append(f"Answers with a message: {tally.messages}, the first: {tally.first_message}")
    return lines
