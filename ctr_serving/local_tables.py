"""LOCAL: the embedding in this process, out of mapped shard tables or an LMDB environment.

<directory>/<version>/<dict_name>_part<shard>.table     every shard; what cube-builder writes, or
<directory>/<version>/<dict_name>.lmdb                  one LMDB environment, see lmdb_table
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Literal, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from ctr_serving.lmdb_table import LmdbTable
from cube_api import STATUS_FOUND, STATUS_WRONG_WIDTH, SeekResult
from cube_core._native import Table
from cube_core.errors import ModelError, TableError, VersionNotLoadedError

log = logging.getLogger(__name__)

_KEYS_ON_LOOP_MAX = 8192
_FLOAT_BYTES = 4


class OpenVersion(Protocol):
    """One version of one dict."""

    dim: int
    keys_on_loop_max: int
    """More keys take too long for the event loop."""

    def get(
        self, keys: NDArray[np.uint64], dim: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Rows float32[n, dim] and status int32[n]; thread-safe."""
        ...


class LocalTables:
    """The versions that engines hold, opened when the first of them is prepared.

    A version is closed when no engine holds it any more. Its files may be removed before that.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._versions: WeakValueDictionary[tuple[str, str], OpenVersion] = WeakValueDictionary()
        # LMDB must not be opened twice at the same time.
        self._opening = asyncio.Lock()

    async def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str,
        dim: int,
        on_failure: Literal["raise", "status"] = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        """See `Source`.

        Raises:
            VersionNotLoadedError: nobody prepared it.
        """
        del on_failure, log_id
        table = self._versions.get((dict_name, version))
        if table is None:
            raise VersionNotLoadedError(f"dict {dict_name!r}: version {version} is not open")
        unsigned = keys.view(np.uint64)
        if len(keys) <= table.keys_on_loop_max:
            rows, status = table.get(unsigned, dim)
        else:
            rows, status = await asyncio.to_thread(table.get, unsigned, dim)
        return SeekResult(rows, status, version)

    async def prepare(self, dict_name: str, version: str, dim: int) -> object:
        """Opens and verifies the version, which takes as long as reading it.

        Raises:
            ModelError: names the file that is missing or wrong.
        """
        async with self._opening:
            table = await self._opened(dict_name, version)
        if table.dim not in (0, dim):
            raise ModelError(
                f"{self._directory / version}: the values of dict {dict_name} are {table.dim}"
                f" floats wide, the model takes {dim}"
            )
        return table

    async def _opened(self, dict_name: str, version: str) -> OpenVersion:
        table = self._versions.get((dict_name, version))
        if table is None:
            started_s = time.monotonic()
            opened: list[OpenVersion] = []
            # Not by the result: the future keeps that until the next collection of garbage.
            await asyncio.to_thread(
                lambda: opened.append(_open(self._directory, dict_name, version))
            )
            table = opened.pop()
            self._versions[dict_name, version] = table
            log.info(
                "dict %s, version %s is open, in %.3f s",
                dict_name,
                version,
                time.monotonic() - started_s,
            )
        return table


class ShardTables:
    """All shards of a version, mapped; the pages are shared by the processes of a machine."""

    keys_on_loop_max = _KEYS_ON_LOOP_MAX

    def __init__(self, tables: list[Table]) -> None:
        self._tables = tables
        # A shard without keys, or with values of any width, knows none.
        self.dim = max(table.value_bytes for table in tables) // _FLOAT_BYTES

    def get(
        self, keys: NDArray[np.uint64], dim: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        rows = np.zeros((len(keys), dim), np.float32)
        status = np.empty(len(keys), np.int32)
        shards = keys % np.uint64(len(self._tables))
        for shard, table in enumerate(self._tables):
            mine = np.flatnonzero(shards == shard)
            if not mine.size:
                continue
            if table.value_bytes:
                values, status[mine] = table.get(keys[mine])
                rows[mine] = values.view(np.float32)
            else:
                rows[mine], status[mine] = _rows_of_width(table, keys[mine], dim)
        return rows, status


def _rows_of_width(
    table: Table, keys: NDArray[np.uint64], dim: int
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Of a table whose values may have different widths, or that has none."""
    offsets, values, status = table.get_bytes(keys)
    rows = np.zeros((len(keys), dim), np.float32)
    fits = (np.diff(offsets) == _FLOAT_BYTES * dim) & (status == STATUS_FOUND)
    places = offsets[:-1][fits][:, None] + np.arange(_FLOAT_BYTES * dim)
    rows[fits] = values[places].view(np.float32)
    status[~fits & (status == STATUS_FOUND)] = STATUS_WRONG_WIDTH
    return rows, status


def _open(directory: Path, dict_name: str, version: str) -> OpenVersion:
    folder = directory / version
    lmdb_path = folder / f"{dict_name}.lmdb"
    parts = {_shard_of(path): path for path in folder.glob(f"{dict_name}_part*.table")}
    if lmdb_path.exists():
        if parts:
            raise ModelError(f"{folder}: holds {dict_name} as shard tables and as LMDB: remove one")
        return LmdbTable(lmdb_path)
    if 0 not in parts:
        raise ModelError(f"{folder}: has neither {dict_name}_part0.table nor {lmdb_path.name}")
    first = _open_table(parts[0], dict_name, version)
    lacking = [shard for shard in range(first.shard_num) if shard not in parts]
    if lacking:
        raise ModelError(
            f"{folder}/{dict_name}_part{lacking[0]}.table: is missing, of {first.shard_num} shards"
        )
    tables = [first]
    for shard in range(1, first.shard_num):
        tables.append(_open_table(parts[shard], dict_name, version))
    for shard, table in enumerate(tables):
        if (table.shard, table.shard_num) != (shard, first.shard_num):
            raise ModelError(
                f"{table.path}: is shard {table.shard} of {table.shard_num}, not {shard} of"
                f" {first.shard_num}"
            )
    if len({table.value_bytes for table in tables if table.value_bytes}) > 1:
        raise ModelError(f"{folder}: the shards of {dict_name} have values of different widths")
    return ShardTables(tables)


def _open_table(path: Path, dict_name: str, version: str) -> Table:
    """The table of one shard; of a patch, what a shard server made of it and what was before it."""
    folded = path.with_suffix(".folded")
    table = _open_file(folded if folded.is_file() else path, dict_name, version)
    if table.kind == "whole":
        return table
    for laid_over in sorted(path.parent.glob(f"{path.stem}.over_*")):
        whole_version = laid_over.suffix.removeprefix(".over_")
        whole = path.parents[1] / whole_version / path.name
        folded = whole.with_suffix(".folded")
        base = _open_file(folded if folded.is_file() else whole, dict_name, whole_version)
        delta = _open_file(laid_over, dict_name, version)
        try:
            return base.with_delta(delta)
        except TableError as error:
            raise ModelError(f"{laid_over}: {error}") from error
    raise ModelError(
        f"{path}: is a patch by itself, from which the rest is missing; a cube-server's data"
        " directory has it laid over its base"
    )


def _open_file(path: Path, dict_name: str, version: str) -> Table:
    try:
        table = Table.open(str(path), in_memory=False)
    except (TableError, OSError) as error:
        raise ModelError(f"{path}: {error}") from error
    if (table.dict_name, table.version) != (dict_name, version):
        raise ModelError(
            f"{path}: is of dict {table.dict_name}, version {table.version}, not of {dict_name},"
            f" {version}"
        )
    if table.value_bytes % _FLOAT_BYTES:
        raise ModelError(f"{path}: values of {table.value_bytes} bytes are no floats")
    return table


def _shard_of(path: Path) -> int:
    text = path.stem.rpartition("_part")[2]
    return int(text) if text.isdecimal() else -1
