"""One batch seek as a state machine without IO: which shards to ask where, and what comes of it."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from cube_api._answers import Answers
from cube_api._balancer import Replica
from cube_api._options import SeekOptions
from cube_api._topology import DictTopology
from cube_core._native import Frame, SeekPlan, next_correlation_id
from cube_core.endpoint import Endpoint
from cube_core.errors import (
    RpcError,
    SeekError,
    SeekTimeoutError,
    ShardError,
    VersionNotLoadedError,
    WireError,
)
from cube_core.wire.prpc_channel import error_of

VERSION_ROUNDS_MAX = 4
"""How often shards are asked again because they answered from different versions."""

_VERSION_NOT_LOADED_CODE = 2001
_SERVER_STOPPING_CODE = 2003
_METHOD = "DictService.seek"

R = TypeVar("R")


class Ask(NamedTuple):
    """One request frame to send."""

    shard: int
    replica: Replica
    correlation_id: int
    frame: bytes

    @property
    def endpoint(self) -> Endpoint:
        return self.replica.endpoint


@dataclass(slots=True)
class _Shard:
    """How far one shard has got; `asks` are in flight, the first sent first."""

    number: int
    replicas: list[Replica]
    turn: int = 0
    failures: int = 0
    refusals: int = 0
    pin: str | None = None
    version: str | None = None
    answer: Frame | None = None
    error: SeekError | None = None
    asks: list[Ask] = field(default_factory=list)
    hedge_at_s: float = math.inf

    @property
    def replica(self) -> Replica:
        return self.replicas[self.turn % len(self.replicas)]


class SeekCall(Generic[R]):
    """A seek under way. A shell sends what `start`, `on_outcome` and, at `wake_s`, `on_time`
    return, reports the outcome of each, and takes `result` once `is_done`; at `deadline_s` it
    calls `expire`. However it ends, it calls `end`.

    Args:
        first_key: 0 when there are no keys.
        answers: where the answers go.
        begin_s: on the monotonic clock, from when its timeout counts; None: from now on.
    """

    def __init__(
        self,
        target: DictTopology,
        plan: SeekPlan,
        first_key: int,
        options: SeekOptions,
        answers: Answers[R],
        begin_s: float | None = None,
    ) -> None:
        self._dict = target
        self._options = options
        self._timeout_ms = options.timeout_ms or target.timeout_ms
        self.deadline_s = (begin_s or time.monotonic()) + self._timeout_ms / 1000
        self._version = options.version
        self._plan = plan
        self._first_key = first_key
        self._answers = answers
        self._shards: dict[int, _Shard] = {}
        self._waiting: set[int] = set()
        self._rounds_num = 0
        self._refused_versions: set[str] = set()

    @property
    def is_done(self) -> bool:
        """Every shard has answered, from one version, or failed."""
        return not self._waiting

    @property
    def wake_s(self) -> float:
        """On the monotonic clock: when `on_time` has something to send, `deadline_s` at the
        latest."""
        if self._dict.backup_request_s is None:
            return self.deadline_s
        hedges_s = [self._shards[number].hedge_at_s for number in self._waiting]
        return min(self.deadline_s, *hedges_s) if hedges_s else self.deadline_s

    def start(self) -> list[Ask]:
        """The first request to each shard that owns a key and was not asked yet."""
        numbers = [number for number in self._plan.shards if number not in self._shards]
        for number in numbers:
            replicas = self._dict.shards[number].in_order(self._first_key)
            self._shards[number] = _Shard(number, replicas, pin=self._version)
        return [self._ask(self._shards[number]) for number in numbers]

    def adopt(
        self, ask: Ask, replicas: list[Replica], sent_s: float, *, has_answered: bool
    ) -> None:
        """Takes over a request to the first of `replicas`, counted and sent before for the version
        and within the deadline of this call. What it `has_answered` from that version was taken.
        """
        shard = self._shards[ask.shard] = _Shard(ask.shard, replicas, pin=self._version)
        if has_answered:
            shard.version = self._version
            return
        shard.asks.append(ask)
        self._waiting.add(ask.shard)
        if self._dict.backup_request_s is not None:
            shard.hedge_at_s = sent_s + self._dict.backup_request_s

    def on_outcome(self, ask: Ask, outcome: Frame | RpcError) -> list[Ask]:
        """Takes the answer to a request, or why there is none; returns what to send next.

        Raises:
            ShardError: the shard cannot be asked, or its answer is malformed.
            VersionNotLoadedError: no replica of the shard has the pinned version.
            SeekError: the shards do not come to one version.
        """
        shard = self._shards[ask.shard]
        if ask not in shard.asks:
            return []
        try:
            return self._take(shard, ask, outcome)
        except ShardError as error:
            if self._options.on_failure == "raise":
                raise
            self._give_up(shard, error)
            return [] if self._waiting else self._agree()

    def _take(self, shard: _Shard, ask: Ask, outcome: Frame | RpcError) -> list[Ask]:
        if isinstance(outcome, RpcError):
            return self._failed(shard, ask, outcome)
        if outcome.error_code:
            error = error_of(outcome, ask.endpoint, _METHOD)
            if error.code == _SERVER_STOPPING_CODE:
                return self._failed(shard, ask, error)
            ask.replica.health.answered(ask.correlation_id)
            shard.asks.remove(ask)
            if error.code == _VERSION_NOT_LOADED_CODE:
                return self._refused(shard, error)
            raise self._shard_error(shard, str(error)) from error
        self._settle(shard, ask)
        shard.version = self._decode(shard, outcome)
        shard.answer = outcome
        if shard.pin is None:
            self._dict.shards[shard.number].answered_from(shard.version)
        if self._version is not None and shard.version != self._version:
            raise VersionNotLoadedError(
                f"{self._name(shard)}: answered from version {shard.version!r} although"
                f" {self._version!r} was asked for; it does not know pinned versions"
            )
        return self._answered(shard)

    def on_time(self, now_s: float) -> list[Ask]:
        """The backup requests that are due: to another replica, of which the first answer wins."""
        if self._dict.backup_request_s is None:
            return []
        hedges: list[Ask] = []
        for number in self._waiting:
            shard = self._shards[number]
            if now_s >= shard.hedge_at_s:
                hedges += self._hedge(shard)
        return hedges

    def end(self) -> None:
        """Nobody waits for answers any more."""
        for shard in self._shards.values():
            for ask in shard.asks:
                ask.replica.health.dropped(ask.correlation_id)
            shard.asks.clear()

    def expire(self) -> None:
        """The deadline passed.

        Raises:
            SeekTimeoutError: names the shards that did not answer. Not raised when failures are
                to be told by status: then the call is done.
        """
        missing = ", ".join(self._place(self._shards[number]) for number in sorted(self._waiting))
        error = SeekTimeoutError(
            f"dict {self._dict.name!r}: no answer within {self._timeout_ms} ms from {missing}"
        )
        for number in self._waiting:
            for ask in self._shards[number].asks:
                ask.replica.health.failed(ask.correlation_id)
            self._shards[number].asks.clear()
        if self._options.on_failure == "raise":
            raise error
        for number in list(self._waiting):
            self._give_up(self._shards[number], error)
        self._keep_one_version(error)

    def result(self) -> R:
        """What the answers make, once `is_done`.

        Raises:
            MissingKeysError: keys are missing, and the options want an error then.
        """
        answered = self._answered_shards()
        failed = [shard for shard in self._shards.values() if shard.error is not None]
        errors = {id(shard.error): shard.error for shard in failed if shard.error is not None}
        return self._answers.result(
            {each.number: each.answer.payload for each in answered if each.answer is not None},
            [shard.number for shard in failed],
            answered[0].version if answered else None,
            tuple(errors.values()),
            is_mixed=bool(self._rounds_num or failed),
        )

    def _ask(self, shard: _Shard) -> Ask:
        self._waiting.add(shard.number)
        now_s = time.monotonic()
        if self._dict.backup_request_s is not None:
            self._dict.hedges.count_request()
            shard.hedge_at_s = now_s + self._dict.backup_request_s
        return self._new_ask(shard, now_s)

    def _new_ask(self, shard: _Shard, now_s: float) -> Ask:
        correlation_id = next_correlation_id()
        frame = self._plan.frame(
            shard.number,
            correlation_id,
            version=shard.pin,
            version_required=True,
            timeout_ms=max(1, round((self.deadline_s - now_s) * 1000)),
            dict_name=self._dict.name,
            log_id=self._options.log_id,
        )
        ask = Ask(shard.number, shard.replica, correlation_id, frame)
        shard.asks.append(ask)
        ask.replica.health.sent(correlation_id, now_s)
        return ask

    def _hedge(self, shard: _Shard) -> list[Ask]:
        shard.hedge_at_s = math.inf
        other = shard.replicas[(shard.turn + 1) % len(shard.replicas)]
        if other is shard.replica or other.health.is_aside or not self._dict.hedges.take():
            return []
        shard.turn += 1
        return [self._new_ask(shard, time.monotonic())]

    def _settle(self, shard: _Shard, winner: Ask) -> None:
        """Drops what else is in flight; what was asked before the winner was overtaken by it."""
        winner.replica.health.answered(winner.correlation_id)
        limit_s = self._dict.backup_request_s or 0.0
        at = shard.asks.index(winner)
        for earlier in shard.asks[:at]:
            earlier.replica.health.overtaken(earlier.correlation_id, limit_s)
        for later in shard.asks[at + 1 :]:
            later.replica.health.dropped(later.correlation_id)
        shard.asks.clear()

    def _failed(self, shard: _Shard, ask: Ask, error: RpcError) -> list[Ask]:
        ask.replica.health.failed(ask.correlation_id)
        shard.asks.remove(ask)
        shard.failures += 1
        if shard.asks:
            return []
        shard.turn += 1
        if shard.failures <= self._dict.retry:
            return [self._ask(shard)]
        times = f"{shard.failures} attempts failed, the last: " if self._dict.retry else ""
        raise self._shard_error(shard, f"{times}{error}") from error

    def _refused(self, shard: _Shard, error: RpcError) -> list[Ask]:
        shard.refusals += 1
        shard.turn += 1
        if shard.asks:
            return []
        if shard.refusals < len(shard.replicas):
            return [self._ask(shard)]
        if shard.answer is None:
            raise VersionNotLoadedError(f"{self._name(shard)}: {error}") from error
        # Asked again only to agree with the other shards: what it answered before still holds.
        if shard.pin is not None:
            self._refused_versions.add(shard.pin)
        return self._answered(shard)

    def _answered(self, shard: _Shard) -> list[Ask]:
        self._waiting.discard(shard.number)
        return [] if self._waiting else self._agree()

    def _agree(self) -> list[Ask]:
        """Asks shards again, pinned, until all rows are of one version."""
        answered = self._answered_shards()
        holders = Counter(shard.version for shard in answered)
        if len(holders) <= 1:
            return []
        self._rounds_num += 1
        if self._rounds_num > VERSION_ROUNDS_MAX:
            answers = ", ".join(f"{s.number}: {s.version!r}" for s in answered)
            raise SeekError(
                f"dict {self._dict.name!r}: its shards answer from different versions ({answers})"
                f" after VERSION_ROUNDS_MAX={VERSION_ROUNDS_MAX} rounds"
            )
        known = [version for version in holders if version is not None]
        wanted = [version for version in known if version not in self._refused_versions]
        pin = max(wanted, key=lambda version: holders[version], default=None)
        if pin is None:
            self._refused_versions.clear()
        again = [shard for shard in answered if pin is None or shard.version != pin]
        for shard in again:
            shard.pin = pin
            shard.refusals = 0
        return [self._ask(shard) for shard in again]

    def _answered_shards(self) -> list[_Shard]:
        return [shard for shard in self._shards.values() if shard.error is None]

    def _give_up(self, shard: _Shard, error: SeekError) -> None:
        for ask in shard.asks:
            ask.replica.health.dropped(ask.correlation_id)
        shard.asks.clear()
        shard.error = error
        shard.answer = None
        self._waiting.discard(shard.number)

    def _keep_one_version(self, error: SeekError) -> None:
        """There is no time left to agree: only shards of the commonest version count."""
        answered = self._answered_shards()
        holders = Counter(shard.version for shard in answered)
        for shard in answered:
            if shard.version != holders.most_common(1)[0][0]:
                self._give_up(shard, error)

    def _decode(self, shard: _Shard, answer: Frame) -> str | None:
        try:
            if answer.compress_type:
                raise WireError(f"compress_type {answer.compress_type} was not asked for")
            return self._answers.take(shard.number, answer.payload)
        except WireError as error:
            raise self._shard_error(shard, f"malformed answer: {error}") from error

    def _place(self, shard: _Shard) -> str:
        return f"shard {shard.number} ({', '.join(str(each.endpoint) for each in shard.replicas)})"

    def _name(self, shard: _Shard) -> str:
        return f"dict {self._dict.name!r} {self._place(shard)}"

    def _shard_error(self, shard: _Shard, problem: str) -> ShardError:
        return ShardError(f"{self._name(shard)}: {problem}")
