"""What is wrong right now, in words: what, since when, and what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cube_transfer.page.situation import CtrNow, ServerNow, Situation
from cube_transfer.state import PassRecord, Stage

RELOAD_GRACE_S = 60.0
"""A CTR server that is not at a published model after so long is told of."""
FAILED_SHARE_MIN = 0.01
"""Of seeks, or predictions, that fail, from which on that is told."""
_NAMED_MAX = 4
_REASON_MAX = 1000

Level = Literal["bad", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        key: the same as long as it is the same problem.
        level: "bad": requests fail, or new passes do not arrive; "warning": something that others
            make up for; "note": somebody wants it so.
        since_s: Unix seconds.
        action: what the page offers: "retry <id of the pass>", "resume" or "".
    """

    key: str
    level: Level
    text: str
    advice: str
    since_s: float | None = None
    action: str = ""


def problems_of(now: Situation) -> list[Problem]:
    """All of them, the worst first."""
    parts: tuple[Callable[[Situation], Iterator[Problem]], ...] = (
        _shards,
        _passes,
        _servers,
        _ctr_servers,
        _donefiles,
        _notes,
    )
    found = [problem for part in parts for problem in part(now)]
    order = ("bad", "warning", "note")
    return sorted(found, key=lambda each: order.index(each.level))


class Noticed:
    """Since when problems are there that do not know it themselves: since they were first seen."""

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def dated(self, problems: Iterable[Problem], now_s: float | None = None) -> list[Problem]:
        """The problems, each with a time; those that are gone are forgotten."""
        now_s = time.time() if now_s is None else now_s
        dated = [
            replace(each, since_s=each.since_s or self._since_s.get(each.key, now_s))
            for each in problems
        ]
        self._since_s = {each.key: each.since_s for each in dated if each.since_s is not None}
        return dated


def _shards(now: Situation) -> Iterator[Problem]:
    for shard, servers in now.shards().items():
        if not all(each.down for each in servers):
            continue
        since_s = [each.since_s for each in servers if each.since_s is not None]
        reasons = "; ".join(f"{_name(each)}: {each.down}" for each in servers)
        which = "its only server does" if len(servers) == 1 else f"all {len(servers)} servers do"
        yield Problem(
            f"shard {shard}",
            "bad",
            f"Shard {shard} is down: {which} not answer ({reasons}).",
            "Requests that need its keys fail. Start its servers: their tables are on their disks.",
            max(since_s, default=None),
        )


def _servers(now: Situation) -> Iterator[Problem]:
    for servers in now.shards().values():
        serving = [each for each in servers if not each.down]
        for each in servers:
            if serving and each.down:
                others = _listed([other.name for other in serving])
                yield Problem(
                    f"down {each.name}",
                    "warning",
                    f"{_name(each)}, of shard {each.shard}, does not answer: {_reason(each.down)}.",
                    f"{others} {'answers' if len(serving) == 1 else 'answer'} for the shard. Start "
                    "it; the daemon then brings it to what the others serve.",
                    each.since_s,
                )
            elif not each.down:
                yield from _server(now, each)


def _server(now: Situation, each: ServerNow) -> Iterator[Problem]:
    going_to = now.under_way.version if now.under_way else None
    if each.refuses:
        yield Problem(
            f"refuses {each.name}",
            "warning",
            f"{_name(each)}, of shard {each.shard}, does not do what it is told: "
            f"{_reason(each.refuses.removeprefix(f'{_name(each)}: '))}.",
            "It is tried again by itself. Its log says more; its disk may be full.",
            each.since_s,
        )
    elif now.wanted and each.version is not None and each.version not in (now.wanted, going_to):
        yield Problem(
            f"behind {each.name}",
            "warning",
            f"{_name(each)}, of shard {each.shard}, serves {each.version or 'nothing'} and not "
            f"{now.wanted}.",
            "The daemon brings it there by itself, when no pass is under way.",
        )
    share = each.rates.share("errors", "requests") if each.rates else None
    if share is not None and share >= FAILED_SHARE_MIN:
        yield Problem(
            f"errors {each.name}",
            "bad",
            f"{_name(each)}, of shard {each.shard}, answers some requests with an error.",
            "Versions that it does not hold are pinned, or requests are malformed or over a limit: "
            "its log and /status say which.",
        )


def _passes(now: Situation) -> Iterator[Problem]:
    record = now.under_way
    if record is not None and now.error:
        reached_s = max(record.reached_at_s.values(), default=None)
        yield Problem(
            f"stuck {record.id} {record.step}",
            "bad",
            f"{_what(record)} does not get on with the step “{record.step}”: {_reason(now.error)}.",
            f"{now.wanted or 'Nothing'} is served meanwhile. The step is tried again by itself; "
            "“Retry” does so at once.",
            reached_s,
            f"retry {record.id}",
        )
    failed = newest_failed(now)
    if failed is not None:
        yield Problem(
            f"failed {failed.id} {failed.order}",
            "bad",
            f"{_what(failed)} failed in the step “{failed.step or 'begin'}”: "
            f"{_reason(failed.error)}.",
            f"{now.wanted or 'Nothing'} is served. Correct what is wrong and retry it, or announce "
            "the next pass.",
            failed.reached_at_s.get(Stage.FAILED.value),
            f"retry {failed.id}" if failed.kind == "pass" else "",
        )
    if now.reconcile_error:
        yield Problem(
            "reconcile",
            "warning",
            f"Servers that lose {now.wanted} cannot get it back: {_reason(now.reconcile_error)}.",
            "Put the directory of this version back, or deploy the next pass.",
        )


def newest_failed(now: Situation) -> PassRecord | None:
    """The failed pass that nothing newer has made up for; None when there is none."""
    for record in now.records:
        if record.stage.is_served or (record.kind == "rollback" and not record.stage.is_final):
            return None
        if record.stage is Stage.FAILED:
            return record
    return None


def _ctr_servers(now: Situation) -> Iterator[Problem]:
    held = [{v for each in servers for v in each.loaded} for servers in now.shards().values()]
    for each in now.ctr_servers:
        if each.down:
            yield Problem(
                f"ctr down {each.name}",
                "warning" if any(not other.down for other in now.ctr_servers) else "bad",
                f"CTR server {each.name} does not answer: {_reason(each.down)}.",
                "Start it; its log says why it ended.",
                each.since_s,
            )
        elif each.version is not None:
            yield from _model(now, each)
            yield from _predictions(each)
            if each.version and all(held) and any(each.version not in shard for shard in held):
                yield Problem(
                    f"ctr pins {each.name}",
                    "bad",
                    f"CTR server {each.name} needs {each.version}, which not every shard holds.",
                    "Its predictions fail. Have it load the model that is published.",
                )


def _model(now: Situation, each: CtrNow) -> Iterator[Problem]:
    reason = f" {_reason(each.problem)}." if each.problem else ""
    if not each.version:
        yield Problem(
            f"ctr empty {each.name}",
            "bad" if now.wanted else "note",
            f"CTR server {each.name} has no model and predicts nothing.{reason}",
            "It takes the model of the next pass; see the directory that it reads from.",
        )
    elif now.publishes and now.wanted and each.version != now.wanted:
        published_s = _published_s(now)
        if published_s is not None and now.at_s - published_s > RELOAD_GRACE_S:
            yield Problem(
                f"ctr behind {each.name}",
                "warning",
                f"CTR server {each.name} predicts with {each.version} and not {now.wanted}."
                f"{reason}",
                "It goes on with both parts of that pass. Its log says why it does not take the "
                "new one.",
                published_s,
            )


def _published_s(now: Situation) -> float | None:
    times = (each.reached_at_s.get("published") for each in now.records if _is_wanted(now, each))
    return max((each for each in times if each is not None), default=None)


def _is_wanted(now: Situation, record: PassRecord) -> bool:
    return record.version == now.wanted


def _predictions(each: CtrNow) -> Iterator[Problem]:
    share = each.rates.share("failed", "requests") if each.rates else None
    if share is not None and share >= FAILED_SHARE_MIN:
        yield Problem(
            f"ctr fails {each.name}",
            "bad",
            f"CTR server {each.name} cannot answer some of its requests.",
            "Failed, too late or over a limit: /status of the server counts each. A shard that is "
            "down, or too much load, is the usual reason.",
        )


def _donefiles(now: Situation) -> Iterator[Problem]:
    for error in now.donefile_errors:
        yield Problem(
            # Behind the address, which has colons of its own.
            f"donefile {error.partition(': ')[0]}",
            "bad",
            f"The donefile cannot be read: {_reason(error)}.",
            "No new pass is noticed meanwhile. It is tried again by itself.",
        )
    if now.bad_lines:
        more = f" And {len(now.bad_lines) - 1} more." if len(now.bad_lines) > 1 else ""
        yield Problem(
            "bad lines",
            "warning",
            f"A line of the donefile is not taken: {_reason(now.bad_lines[0])}.{more}",
            "Correct it; the other lines count.",
        )


def _notes(now: Situation) -> Iterator[Problem]:
    if now.paused:
        yield Problem(
            "paused",
            "note",
            "Deployments are paused: new passes are left alone.",
            "“Resume” lets the daemon take them.",
            action="resume",
        )
    if not now.wanted and now.under_way is None:
        where = f" ({now.awaited})" if now.awaited else ""
        yield Problem(
            "empty",
            "note",
            f"No pass has been deployed yet{where}.",
            "The first line of the donefile begins the first deployment.",
        )


def _name(server: ServerNow) -> str:
    return f"{server.name} ({server.endpoint})"


def _reason(text: str) -> str:
    """Of a sentence that goes on to its own full stop."""
    return text.strip().rstrip(".")[:_REASON_MAX]


def _what(record: PassRecord) -> str:
    if record.kind == "rollback":
        return f"The rollback to {record.version}"
    if record.kind == "reshard":
        return f"The move of {record.version} to other shards"
    return f"Pass {record.id} ({record.version})" if record.id != record.version else record.id


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:_NAMED_MAX], *(["others"] if len(names) > _NAMED_MAX else [])]
    if len(shown) == 1:
        return shown[0]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
