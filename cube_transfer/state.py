"""What the daemon knows, in LMDB: every step is recorded before it is begun."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import lmdb
from pydantic import BaseModel, ConfigDict, ValidationError

from cube_core.directory_lock import DirectoryLock
from cube_core.errors import DeployError
from cube_core.versions import Version
from cube_transfer.donefile import DonefileEntry

log = logging.getLogger(__name__)

RECORDS_KEPT = 1000
MAP_BYTES = 64 << 20
"""Room in memory's addresses for the records; it is doubled when they need more."""
_WANTED_KEY = b"wanted"
_PAUSED_KEY = b"paused"
_PASS_PREFIX = b"pass/"


class Stage(str, Enum):
    """How far a pass has come; the last three are final."""

    NOTICED = "noticed"
    PULLED = "pulled"
    BUILT = "built"
    SHIPPED = "shipped"
    LOADED = "loaded"
    SWITCHED = "switched"
    PUBLISHED = "published"
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        return self in (Stage.DONE, Stage.FAILED, Stage.SUPERSEDED)

    @property
    def is_served(self) -> bool:
        """Whether all servers have switched to it at that time."""
        return self in (Stage.SWITCHED, Stage.PUBLISHED, Stage.DONE)


class PassRecord(BaseModel):
    """One pass of a donefile and its way into production, or a rollback to one."""

    model_config = ConfigDict(frozen=True)

    id: str
    """Of a base the id of its line; of a patch, whose id others may have, its version."""
    key: str
    version: str
    previous: str = ""
    """Of a patch the version that it is laid over; "" of a base."""
    input: str
    dense: str
    fields: dict[str, Any]
    """The donefile's line, unknown fields included."""
    order: int
    """Grows from pass to pass."""
    kind: Literal["pass", "rollback", "reshard"] = "pass"
    rolled_back: bool = False
    """Was served and rolled back from: no rollback goes to it by itself."""
    stage: Stage = Stage.NOTICED
    step: str = ""
    """The step that was begun and is not over."""
    error: str = ""
    """Of a failed pass."""
    late_replicas: tuple[str, ...] = ()
    """Servers that the switch did not wait for; they are brought to the version afterwards."""
    announced_at_s: float = 0.0
    """Unix seconds at which its line was first read; 0 where that is not known."""
    reached_at_s: dict[str, float] = {}
    """Unix seconds at which each stage was reached."""
    shards_took_s: dict[str, dict[int, float]] = {}
    """By each step that servers take part in, and by shard: seconds until the slowest server of the
    shard had done it, but for late ones."""

    @classmethod
    def of(cls, entry: DonefileEntry, order: int, **fields: Any) -> PassRecord:
        version = entry.version
        return cls(
            id=_record_id(version),
            key=entry.key,
            version=str(version),
            input=entry.input,
            dense=entry.dense,
            fields=dict(entry.fields),
            order=order,
            announced_at_s=(now_s := time.time()),
            reached_at_s={Stage.NOTICED.value: now_s},
            **fields,
        )

    def anew(self, order: int, **changes: Any) -> PassRecord:
        """The record of another attempt, with nothing of what came of this one."""
        fresh = {"stage": Stage.NOTICED, "step": "", "error": "", "late_replicas": ()}
        times = {"reached_at_s": {Stage.NOTICED.value: time.time()}, "shards_took_s": {}}
        return self.model_copy(update={**fresh, **times, "order": order, **changes})

    @property
    def parsed_version(self) -> Version:
        return Version.parse(self.version)

    @property
    def is_base(self) -> bool:
        """Whether it is a base of the donefile, and so no patch and no command."""
        return self.kind == "pass" and not self.previous


class State:
    """The records of one daemon; a second daemon on the same directory is refused.

    Reading is from memory; every write is one transaction, on disk when `save` returns.

    Raises:
        DeployError: the directory is another daemon's, or what is in it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = DirectoryLock(directory, "cube-transfer", "--state_dir", DeployError)
        self._saving = threading.Lock()
        try:
            self._env = lmdb.open(str(directory), map_size=MAP_BYTES, max_dbs=0)
            self._records, self._wanted, self._paused = self._load()
        except (lmdb.Error, ValidationError) as error:
            self._lock.close()
            problem = " ".join(str(error).split())
            raise DeployError(
                f"{directory}: state cannot be read: {problem}; move it away to start afresh"
            ) from error

    @property
    def wanted(self) -> str:
        """The version that all servers are to serve; "" before the first switch."""
        return self._wanted

    @property
    def paused(self) -> bool:
        """Whether new passes of the donefile are left alone."""
        return self._paused

    def pass_of(self, version: Version) -> PassRecord | None:
        """The pass of the donefile that has this version."""
        return self._records.get(_record_id(version))

    def stack_of(self, version: str) -> list[PassRecord]:
        """The passes that a version consists of: its base, the patches over it in order, itself
        last. Shorter, or empty, where that is not known any more."""
        return _stack(self._records, version)

    def newest_of_base(self, base: str) -> PassRecord | None:
        """The pass of the base that was served last; the base itself when no patch was."""
        return next(
            (
                each
                for each in self.records()
                if each.kind == "pass" and each.stage.is_served and each.parsed_version.base == base
            ),
            None,
        )

    def newest_numbered_base(self) -> PassRecord | None:
        """The base that was served last, of those that have a number as id and were not rolled back
        from."""
        return next(
            (
                each
                for each in self.records()
                if each.is_base
                and each.stage.is_served
                and not each.rolled_back
                and each.id.isdecimal()
            ),
            None,
        )

    def records(self) -> list[PassRecord]:
        """All records, newest first."""
        return sorted(self._records.values(), key=lambda record: -record.order)

    def unfinished(self) -> list[PassRecord]:
        """What is under way, or was when the daemon ended, newest first; more than one when the
        newest is there to replace the others."""
        return [record for record in self.records() if not record.stage.is_final]

    def next_order(self) -> int:
        return max((record.order for record in self._records.values()), default=0) + 1

    def save(
        self, *records: PassRecord, wanted: str | None = None, paused: bool | None = None
    ) -> None:
        """Writes records, and what else is given, as one transaction. May be called by several
        threads."""
        with self._saving:
            while True:
                try:
                    return self._save(records, wanted, paused)
                except lmdb.MapFullError:
                    self._grow()

    def _grow(self) -> None:
        map_bytes = 2 * self._env.info()["map_size"]
        self._env.set_mapsize(map_bytes)
        log.info("%s: more records than before: room for %d MiB", self._directory, map_bytes >> 20)

    def _save(self, records: Sequence[PassRecord], wanted: str | None, paused: bool | None) -> None:
        known = {**self._records, **{record.id: record for record in records}}
        forgotten = self._forgotten(known, self._wanted if wanted is None else wanted)
        with self._env.begin(write=True) as transaction:
            for record in records:
                if record.id not in forgotten:
                    transaction.put(_key(record), record.model_dump_json().encode())
            for record in forgotten.values():
                transaction.delete(_key(record))
            if wanted is not None:
                transaction.put(_WANTED_KEY, wanted.encode())
            if paused is not None:
                transaction.put(_PAUSED_KEY, b"1" if paused else b"0")
        self._records = {id: record for id, record in known.items() if id not in forgotten}
        self._wanted = self._wanted if wanted is None else wanted
        self._paused = self._paused if paused is None else paused

    def _forgotten(self, known: Mapping[str, PassRecord], wanted: str) -> dict[str, PassRecord]:
        """The oldest bases and the oldest others, but for what `wanted` consists of. A base that
        is in the donefile must not look new for all the patches that followed it."""
        if len(known) <= RECORDS_KEPT:
            return {}
        newest_first = sorted(known.values(), key=lambda record: -record.order)
        bases = [each for each in newest_first if each.is_base]
        others = [each for each in newest_first if not each.is_base]
        needed = {record.id for record in _stack(known, wanted)}
        too_many = (*bases[RECORDS_KEPT:], *others[RECORDS_KEPT:])
        return {record.id: record for record in too_many if record.id not in needed}

    def close(self) -> None:
        self._env.close()
        self._lock.close()

    def _load(self) -> tuple[dict[str, PassRecord], str, bool]:
        with self._env.begin() as transaction:
            pairs = {bytes(key): bytes(value) for key, value in transaction.cursor()}
        records = (
            PassRecord.model_validate_json(value)
            for key, value in pairs.items()
            if key.startswith(_PASS_PREFIX)
        )
        wanted = pairs.get(_WANTED_KEY, b"").decode()
        return {record.id: record for record in records}, wanted, pairs.get(_PAUSED_KEY) == b"1"


def _stack(records: Mapping[str, PassRecord], version: str) -> list[PassRecord]:
    stack: dict[str, PassRecord] = {}
    name = version
    while name and name not in stack:
        record = records.get(_record_id(Version.parse(name)))
        if record is None:
            break
        stack[name] = record
        name = record.previous
    return list(stack.values())[::-1]


def _record_id(version: Version) -> str:
    return version.version if version.is_base else str(version)


def _key(record: PassRecord) -> bytes:
    return _PASS_PREFIX + record.id.encode()
