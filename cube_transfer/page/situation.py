"""Everything that the page shows, at one time; frozen, so that other threads can read it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cube_transfer.daemon import Daemon
from cube_transfer.page.readings import Rates
from cube_transfer.page.sampling import Sampled, Sampler
from cube_transfer.replica_link import ReplicaLink
from cube_transfer.state import PassRecord, Stage

_FAILURES_MIN = 2


@dataclass(frozen=True)
class ServerNow:
    """A shard server.

    Attributes:
        version: that it answers from; "" for none. None: it was never reached.
        loaded: versions that it holds, and so answers when they are pinned.
        down: why it does not answer, repeatedly; "" when it does.
        refuses: why the daemon does not get on with it; "" when it does.
        since_s: Unix seconds since when it is down or refuses; None when neither.
    """

    name: str
    endpoint: str
    shard: int
    version: str | None
    loaded: Sequence[str]
    down: str
    refuses: str
    since_s: float | None
    keys: int | None = None
    memory_bytes: int | None = None
    rates: Rates | None = None


@dataclass(frozen=True)
class CtrNow:
    """A CTR server; `version` is that of its dense model, which its seeks pin."""

    name: str
    version: str | None
    down: str
    since_s: float | None
    problem: str = ""
    rates: Rates | None = None
    has_cache: bool = False
    missing_by_slot: Sequence[float] = ()


@dataclass(frozen=True)
class Situation:
    """What the daemon knows at one time.

    Attributes:
        records: newest first, all of them.
        error: why the step under way does not get on.
        donefile_errors, bad_lines: of the donefiles, as texts.
        awaited: the donefile that nobody has written yet; "" when it is there.
        publishes: whether dense models are published for CTR servers.
    """

    at_s: float
    dict_name: str
    wanted: str
    paused: bool
    under_way: PassRecord | None
    error: str
    records: Sequence[PassRecord]
    donefile_errors: Sequence[str]
    awaited: str
    bad_lines: Sequence[str]
    reconcile_error: str
    servers: Sequence[ServerNow]
    ctr_servers: Sequence[CtrNow]
    publishes: bool = True

    def shards(self) -> Mapping[int, Sequence[ServerNow]]:
        """The servers of each shard."""
        shards: dict[int, list[ServerNow]] = {}
        for each in self.servers:
            shards.setdefault(each.shard, []).append(each)
        return shards

    def served_since_s(self) -> float | None:
        """Unix seconds of the switch to what is served."""
        times = [
            each.reached_at_s[Stage.SWITCHED.value]
            for each in self.records
            if each.version == self.wanted and Stage.SWITCHED.value in each.reached_at_s
        ]
        return max(times, default=None)


def situation_of(daemon: Daemon, sampler: Sampler) -> Situation:
    """Copies what is known; quick, and on the event loop, where nothing changes meanwhile."""
    bases, patches = daemon.donefiles.bases, daemon.donefiles.patches
    donefiles = [bases, *([patches] if patches is not None else [])]
    now_s, now_monotonic_s = time.time(), time.monotonic()
    pairs = zip(daemon.fleet.links, sampler.servers, strict=True)
    return Situation(
        at_s=now_s,
        dict_name=daemon.settings.conf.dict_name,
        wanted=daemon.state.wanted,
        paused=daemon.state.paused,
        under_way=daemon.deployer.under_way,
        error=daemon.deployer.error or "; ".join(daemon.fleet.shards_down()),
        records=daemon.state.records(),
        donefile_errors=[each.error for each in donefiles if each.error and not each.is_missing],
        awaited=bases.error if bases.is_missing else "",
        bad_lines=[str(error) for errors in daemon.bad_lines().values() for error in errors],
        reconcile_error=daemon.reconcile_error,
        servers=[_server(link, sampled, now_s - now_monotonic_s) for link, sampled in pairs],
        ctr_servers=[_ctr_server(each) for each in sampler.ctr_servers],
        publishes=daemon.settings.model_deploy_path is not None,
    )


def _server(link: ReplicaLink, sampled: Sampled, unix_minus_monotonic_s: float) -> ServerNow:
    reading = sampled.reading
    since_s = [sampled.failing_since_s]
    if link.failing_since_s is not None:
        since_s.append(round(link.failing_since_s + unix_minus_monotonic_s, 1))
    version = reading.version if reading else None
    if link.versions and (reading is None or link.seen_at_s > reading.at_s):
        version = link.versions.current
    # One late answer on a busy machine is no server that is down.
    is_down = sampled.failures >= _FAILURES_MIN or (sampled.failures and link.error)
    return ServerNow(
        name=link.replica.name,
        endpoint=str(link.replica.endpoint),
        shard=link.replica.shard,
        version=version,
        loaded=reading.facts["loaded"] if reading else (),
        down=sampled.error if is_down else "",
        refuses=link.error,
        since_s=min((each for each in since_s if each is not None), default=None),
        keys=reading.facts["keys"] if reading else None,
        memory_bytes=reading.facts["memory_bytes"] if reading else None,
        rates=sampled.rates,
    )


def _ctr_server(sampled: Sampled) -> CtrNow:
    reading = sampled.reading
    return CtrNow(
        name=sampled.name,
        version=reading.version if reading else None,
        down=sampled.error if sampled.failures >= _FAILURES_MIN else "",
        since_s=sampled.failing_since_s,
        problem=reading.facts["problem"] if reading else "",
        rates=sampled.rates,
        has_cache=bool(reading and reading.facts["has_cache"]),
        missing_by_slot=sampled.missing_by_slot(),
    )
