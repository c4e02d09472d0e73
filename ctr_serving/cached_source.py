"""A cache of hot keys before a source: rows of one version, dropped with the model it is for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from cube_api import SeekResult
from cube_core._native import RowCache, SequenceFileReader
from cube_core.errors import SequenceFileError

if TYPE_CHECKING:
    from ctr_serving.sources import Keys, Source

log = logging.getLogger(__name__)

CACHE_NAME = "cube_cache"
"""Beside a model: a directory with SequenceFiles part-*, or one such file; its keys are hot."""

_SUMMED = ("keys", "capacity_keys", "capacity_bytes", "hits", "misses")
_KEYS_ON_LOOP_MAX = 16384
_FILL_KEYS = 4096
_READ_RECORDS = 65536


@dataclass
class CacheCounts:
    """Of all versions since the start: keys that caches answered, and keys that they did not."""

    hits: int = 0
    misses: int = 0


class CachedVersion:
    """What an engine holds of its embedding version: while it does, its cache is kept.

    Attributes:
        dict_name: whose rows it has.
        cache, counts: of this version, and of all since the start.
        problem: why the keys of `cube_cache` could not be taken; "" when they were.
    """

    def __init__(
        self,
        source: Source,
        kept: object,
        dict_name: str,
        version: str,
        cache: RowCache,
        counts: CacheCounts,
    ) -> None:
        self._source = source
        self._kept = kept
        self.dict_name = dict_name
        self._version = version
        self.cache = cache
        self.counts = counts
        self.problem = ""

    async def fill(self, model_directory: Path, before: CachedVersion | None) -> None:
        """Fetches the keys of `cube_cache` beside a model that is about to be served, and those
        that are hot in what the served one holds, `before`. Only keys are taken over: rows come
        from the source, so that a file of another pass does no harm.

        Raises:
            SeekError, VersionNotLoadedError: the rows cannot be fetched.
        """
        room = self.cache.capacity // 2
        keys, self.problem = await asyncio.to_thread(_keys_beside, model_directory, room)
        if self.problem:
            log.warning("%s", self.problem)
        if before is not None and before is not self and len(keys) < room:
            hot = await asyncio.to_thread(before.cache.hot_keys, room - len(keys))
            keys = np.concatenate([keys, hot])
        for begin in range(0, len(keys), _FILL_KEYS):
            part = keys[begin : begin + _FILL_KEYS]
            found = await self._source.seek(
                self.dict_name, part, version=self._version, dim=self.cache.dim
            )
            self.cache.put(part, found.rows, found.status)
        if len(keys):
            log.info("version %s: %d keys are cached from the start", self._version, len(keys))


def cached_versions(held: object) -> list[CachedVersion]:
    """Those among what an engine holds of its embedding."""
    each = held if isinstance(held, list) else [held]
    return [version for version in each if isinstance(version, CachedVersion)]


async def fill_caches(model_directory: Path, held: object, before: object) -> None:
    """Fills the caches of a model that is about to be served; see `CachedVersion.fill`."""
    earlier = {version.dict_name: version for version in cached_versions(before)}
    for version in cached_versions(held):
        await version.fill(model_directory, earlier.get(version.dict_name))


def cache_status(held: object) -> dict[str, Any] | None:
    """As /status tells it, hits and misses of all versions; None without a cache."""
    versions = cached_versions(held)
    if not versions:
        return None
    counts = versions[0].counts
    return {
        "keys": sum(len(version.cache) for version in versions),
        "capacity_keys": sum(version.cache.capacity for version in versions),
        "capacity_bytes": sum(version.cache.bytes for version in versions),
        "hits": counts.hits,
        "misses": counts.misses,
        "hit_rate": _share(counts.hits, counts.misses),
        "problem": next((each.problem for each in versions if each.problem), ""),
    }


def joined_cache(statuses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `cache_status` tells of one engine in several processes, one at least, together."""
    sums = {name: sum(each[name] for each in statuses) for name in _SUMMED}
    return {
        **sums,
        "hit_rate": _share(sums["hits"], sums["misses"]),
        "problem": next((each["problem"] for each in statuses if each["problem"]), ""),
    }


def _share(hits: int, misses: int) -> float:
    return round(hits / (hits + misses), 4) if hits + misses else 0.0


class CachedSource:
    """Answers keys from the cache of their version and asks the source for the others only.

    A version has a cache from when it is prepared until no engine holds it any more; a row is
    served for no other version than the one it was got from.

    Args:
        capacity_bytes: of the cache of each version of each dict of the engine that it is for.
    """

    def __init__(self, source: Source, capacity_bytes: int) -> None:
        self._source = source
        self._capacity_bytes = capacity_bytes
        self._versions: WeakValueDictionary[tuple[str, str], CachedVersion] = WeakValueDictionary()
        self._counts = CacheCounts()

    async def seek(
        self,
        dict_name: str,
        keys: Keys,
        *,
        version: str,
        dim: int,
        on_failure: Literal["raise", "status"] = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        """See `Source`."""
        cached = self._versions.get((dict_name, version))
        if cached is None:
            return await self._source.seek(
                dict_name, keys, version=version, dim=dim, on_failure=on_failure, log_id=log_id
            )
        unsigned = np.ascontiguousarray(keys).view(np.uint64)
        rows = np.empty((len(keys), dim), np.float32)
        status = np.empty(len(keys), np.int32)
        if len(keys) <= _KEYS_ON_LOOP_MAX:
            unknown = cached.cache.get(unsigned, rows, status)
        else:
            unknown = await asyncio.to_thread(cached.cache.get, unsigned, rows, status)
        self._counts.misses += len(unknown)
        self._counts.hits += len(keys) - len(unknown)
        if not len(unknown):
            return SeekResult(rows, status, version)
        found = await self._source.seek(
            dict_name,
            unsigned[unknown] if len(unknown) < len(keys) else unsigned,
            version=version,
            dim=dim,
            on_failure=on_failure,
            log_id=log_id,
        )
        if len(unknown) == len(keys):
            cached.cache.put(unsigned, found.rows, found.status)
            return found
        cached.cache.fill(unsigned, unknown, found.rows, found.status, rows, status)
        return SeekResult(rows, status, version, found.errors)

    async def prepare(self, dict_name: str, version: str, dim: int) -> CachedVersion:
        """See `Source`; the version is cached as long as what it returns is held."""
        kept = await self._source.prepare(dict_name, version, dim)
        cached = self._versions.get((dict_name, version))
        if cached is None or cached.cache.dim != dim:
            cache = await asyncio.to_thread(RowCache, self._capacity_bytes, dim)
            cached = CachedVersion(self._source, kept, dict_name, version, cache, self._counts)
            self._versions[dict_name, version] = cached
        return cached


def _keys_beside(model_directory: Path, keys_max: int) -> tuple[NDArray[np.uint64], str]:
    """Keys of `cube_cache`, at most so many, and what was wrong with it."""
    path = model_directory / CACHE_NAME
    files = sorted(path.glob("part-*")) if path.is_dir() else [path] if path.is_file() else []
    parts: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    room = keys_max
    try:
        for file in files:
            reader = SequenceFileReader(str(file))
            while room > 0 and len(keys := reader.read(min(room, _READ_RECORDS))[0]):
                parts.append(keys)
                room -= len(keys)
    except (SequenceFileError, OSError) as error:
        return np.concatenate(parts), f"{path}: not all of its keys are cached: {error}"
    return np.concatenate(parts), ""
