"""The shard tables of one built version, as the servers are told to fetch them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cube_builder.job import BuildReport
from cube_core.errors import BuildError
from cube_core.versions import Version
from cube_transfer.settings import Settings
from cube_transfer.state import State
from cube_transfer.table_links import TableLinks


@dataclass(frozen=True)
class ShardTable:
    """One file; `crc32c` is of the whole of it."""

    shard: int
    url: str
    file_bytes: int
    crc32c: int


@dataclass(frozen=True)
class TableSet:
    """All shards of one version; `tables[shard]`."""

    version: str
    value_bytes: int
    tables: tuple[ShardTable, ...]


@dataclass(frozen=True)
class TableStack:
    """The tables that a version is answered from: those of its base, then of each patch over it,
    in order; `versions` names them, the version itself last."""

    versions: tuple[str, ...]
    top: TableSet
    read: Callable[[str], TableSet]
    """Reads those of one of the versions; raises BuildError."""

    @property
    def version(self) -> str:
        return self.top.version

    @property
    def previous(self) -> str:
        """What the version is laid over; "" for a base."""
        return self.below(self.version)

    def below(self, version: str) -> str:
        """What one of the versions is laid over; "" for the base."""
        place = self.versions.index(version)
        return self.versions[place - 1] if place else ""


def read_stack(settings: Settings, state: State, version: str) -> TableStack:
    """Reads what was built for a version; for what it is laid over, `read` does so when it is
    needed.

    Raises:
        BuildError: as `read_tables`, or it is not known any more what a patch is laid over.
    """
    conf = settings.conf
    read = functools.partial(
        read_tables,
        settings.output_address,
        dict_name=conf.dict_name,
        shard_num=conf.shard_num,
        links=settings.links,
    )
    versions = tuple(record.version for record in state.stack_of(version)) or (version,)
    if not Version.parse(versions[0]).is_base:
        raise BuildError(f"{version}: what {versions[0]} is laid over is not known any more")
    return TableStack(versions, read(version), read)


def read_tables(
    output_address: Path, version: str, *, dict_name: str, shard_num: int, links: TableLinks
) -> TableSet:
    """Reads what the builder left in `<output_address>/<version>`.

    Args:
        links: where the daemon serves `output_address`.

    Raises:
        BuildError: no build, one of another dict, version or shard_num, or a table that is
            missing or of another size than the build's report says.
    """
    directory = output_address / version
    report = BuildReport.read(directory)
    found = (report.dict_name, report.version, report.shard_num, len(report.shards))
    expected = (dict_name, version, shard_num, shard_num)
    if found != expected:
        raise BuildError(
            f"{directory}: holds dict {report.dict_name} version {report.version} in "
            f"{report.shard_num} shards; wanted is {dict_name} {version} in {shard_num}"
        )
    tables: list[ShardTable] = []
    for shard, entry in enumerate(sorted(report.shards, key=lambda entry: entry.shard)):
        path = directory / entry.file
        if entry.shard != shard or not path.is_file():
            raise BuildError(f"{path}: the table of shard {shard} is missing")
        if path.stat().st_size != entry.file_bytes:
            raise BuildError(f"{path}: is not {entry.file_bytes} bytes, as its build said")
        url = links.url(version, entry.file)
        tables.append(ShardTable(shard, url, entry.file_bytes, entry.crc32c))
    return TableSet(version, report.value_bytes, tuple(tables))
