"""Tables from the data directory into memory, patches laid over them and folded into them."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cube_core._native import Table, merge_tables
from cube_core.errors import ControlError, CubeError
from cube_core.versions import Version
from cube_server.loaded import LoadedTable
from cube_server.store import DataDirectory


class TableOpener:
    """Opens what one dict is served from. Blocks on the disk.

    Args:
        in_memory: read tables into memory; else map the files.
        shared: into memory that other processes can attach to.

    All methods raise ControlError for what cannot be used: it names version and file.
    """

    def __init__(self, store: DataDirectory, *, in_memory: bool, shared: bool) -> None:
        self._store = store
        self._in_memory = in_memory
        self._shared = in_memory and shared

    def open(self, version: Version, loaded: Collection[LoadedTable] = ()) -> LoadedTable:
        """A version as it stands on disk: a whole table, or a patch that was laid over one.

        Args:
            loaded: a whole table that is in memory already is shared.
        """
        while True:
            found = self._store.files(version)
            try:
                with _naming(version):
                    return self._open(version, loaded)
            except ControlError:
                # A fold may have put its table in the place of what was found.
                if self._store.files(version) == found:
                    raise

    def _open(self, version: Version, loaded: Collection[LoadedTable]) -> LoadedTable:
        started_s = time.monotonic()
        whole = self._whole(version, loaded)
        if whole is not None:
            return LoadedTable.of_whole(version, whole, time.monotonic() - started_s)
        for whole_version, path in self._store.laid_over(version):
            whole = self._whole(whole_version, loaded)
            if whole is None:
                continue
            with _naming(version):
                delta = self._open_file(path, version)
                return LoadedTable.of_parts(version, whole, delta, time.monotonic() - started_s)
        raise ControlError(
            f"{self._store.find_table(version)}: is a patch, and not laid over anything that is on"
            " disk: load its base, then every patch in order with bg_load_patch"
        )

    def open_shipped(self, version: Version) -> Table:
        """The file of a version as it was shipped, whole table or delta, mapped and verified."""
        with _naming(version):
            table = Table.open(str(self._store.find_table(version)), in_memory=False)
        check_table(table, version, self._store)
        return table

    def open_patch(self, version: Version) -> Table:
        """The delta that was shipped for a patch, mapped and verified."""
        shipped = self.open_shipped(version)
        if shipped.kind != "delta":
            raise ControlError(f"{shipped.path}: is a whole table and no patch")
        return shipped

    def lay_over(self, version: Version, whole: Table, deltas: Sequence[Table]) -> LoadedTable:
        """A patch over a whole table: merges what is to be laid over it, writes that beside the
        patch, for the next start, and opens it.

        Args:
            deltas: oldest first; the last is the patch itself.
        """
        started_s = time.monotonic()
        with _naming(version):
            whole_version = Version.parse(whole.version)
            merged = self.merge(version, deltas)
            path = self._store.place_laid_over(merged, version, whole_version)
            try:
                delta = self._open_file(path, version)
                return LoadedTable.of_parts(version, whole, delta, time.monotonic() - started_s)
            except BaseException:
                path.unlink()
                raise

    def merge(self, version: Version, tables: Sequence[Table]) -> Path:
        """Writes what tables hold together, oldest first, under a temporary name beside the
        version's table."""
        temporary = self._store.temporary_path(version)
        try:
            with _naming(version):
                merge_tables(str(temporary), tables, version=str(version))
        except BaseException:
            self._store.discard(temporary)
            raise
        return temporary

    def place_folded(self, version: Version, written: Path) -> Path:
        """Moves a whole table of a patch, that `merge` wrote, into place."""
        with _naming(version):
            return self._store.place_folded(written, version)

    def discard(self, path: Path) -> None:
        """Removes what `merge` wrote, placed or not."""
        self._store.discard(path)

    def open_folded(self, version: Version, placed: Path) -> LoadedTable:
        """Opens what `place_folded` placed."""
        started_s = time.monotonic()
        with _naming(version):
            whole = self._open_file(placed, version)
        return LoadedTable.of_whole(version, whole, time.monotonic() - started_s)

    def _whole(self, version: Version, loaded: Collection[LoadedTable]) -> Table | None:
        """The whole table of a version; None when what is there is a patch alone."""
        for each in loaded:
            if each.whole.version == str(version):
                return each.whole
        folded = self._store.folded(version)
        if folded is None and self._store.laid_over(version):
            return None
        with _naming(version):
            table = self._open_file(folded or self._store.find_table(version), version)
        return table if table.kind == "whole" else None

    def _open_file(self, path: Path, version: Version) -> Table:
        table = Table.open(str(path), in_memory=self._in_memory, shared=self._shared)
        check_table(table, version, self._store)
        return table


def check_table(table: Table, version: Version, store: DataDirectory) -> None:
    """Checks that a table is what its place says.

    Raises:
        ControlError: names the file, the field and both values.
    """
    expected: list[tuple[str, object, object]] = [("version", table.version, str(version))]
    if store.dict_name:
        expected.append(("dict_name", table.dict_name, store.dict_name))
    if store.shard is not None:
        expected.append(("shard", table.shard, store.shard))
    if table.kind == "delta":
        base = Version.parse(table.base_version).base
        expected.append(("base", base, version.base))
    for field, found, wanted in expected:
        if found != wanted:
            raise ControlError(f"{table.path}: {field} is {found!r}, expected {wanted!r}")


@contextmanager
def _naming(version: Version) -> Iterator[None]:
    """Errors of files and tables name the version that cannot be used."""
    try:
        yield
    except ControlError:
        raise
    except (CubeError, OSError, ValueError, MemoryError) as error:
        raise ControlError(f"version {version} cannot be loaded: {error}") from error
