"""The data directory of a shard server.

<data_dir>/VERSION                                      version to serve after a restart
<data_dir>/WANTED                                       version that `want` named, if any
<data_dir>/<version>/<dict_name>_part<shard>.table      one table a version, as it was shipped
<data_dir>/<version>/<dict_name>_part<shard>.over_<w>   of a patch: all that changed since the whole
                                                        table of version <w>
<data_dir>/<version>/<dict_name>_part<shard>.folded     of a patch: the whole table with all changes
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Collection
from pathlib import Path

from cube_core.errors import ControlError
from cube_core.replace_file import replace_file, sync_directory
from cube_core.versions import Version

_FILE_NAME = re.compile(
    r"(?P<dict_name>[0-9A-Za-z_.\-]+)_part(?P<shard>\d+)"
    r"\.(?:(?P<table>table)|(?P<folded>folded)|over_(?P<over>[0-9A-Za-z_.\-]+))"
)
DICT_NAME = re.compile(r"[0-9A-Za-z_.\-]{1,128}")
_TEMPORARY_PREFIX = ".incoming-"
_VERSION_BYTES_MAX = 256


class DataDirectory:
    """Finds, places and removes the tables of one dict and shard. Blocks on the disk.

    Args:
        dict_name: "" for any dict.
        shard: None for any shard.
    """

    def __init__(self, root: Path, dict_name: str = "", shard: int | None = None) -> None:
        self.root = root
        self.dict_name = dict_name
        self.shard = shard

    def open(self) -> None:
        """Creates the directory, and removes what a killed process left half-written."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.remove_temporaries()

    def remove_temporaries(self) -> None:
        """Removes what was not written to its end; nobody may be writing any more."""
        for leftover in self.root.glob(f"*/{_TEMPORARY_PREFIX}*"):
            leftover.unlink()
            _remove_if_empty(leftover.parent)
        for leftover in self.root.glob(".*.tmp"):
            leftover.unlink()

    def recorded_version(self) -> Version | None:
        """The version that VERSION names; None without that file.

        Raises:
            ControlError: VERSION does not hold the name of a version.
        """
        return self._named_in("VERSION")

    def record_version(self, version: Version) -> None:
        """Writes VERSION, whole or not at all."""
        replace_file(self.root / "VERSION", f"{version}\n")

    def wanted_version(self) -> Version | None:
        """The version that WANTED names; None without that file.

        Raises:
            ControlError: WANTED does not hold the name of a version.
        """
        return self._named_in("WANTED")

    def record_wanted(self, version: Version | None) -> None:
        """Writes WANTED, whole or not at all; removes it for None."""
        if version is None:
            (self.root / "WANTED").unlink(missing_ok=True)
        else:
            replace_file(self.root / "WANTED", f"{version}\n")

    def _named_in(self, name: str) -> Version | None:
        path = self.root / name
        try:
            with path.open("rb") as file:
                text = file.read(_VERSION_BYTES_MAX).decode("utf-8", errors="replace").strip()
        except FileNotFoundError:
            return None
        try:
            return Version.parse(text)
        except ControlError as error:
            raise ControlError(f"{path}: {error}") from error

    def dict_names(self) -> set[str]:
        """Names of the dicts whose tables are on disk, those of this server."""
        tables = [path for version in self.versions() for path in self.tables(version)]
        return {_field_of(path, "dict_name") or "" for path in tables}

    def close_empty(self) -> None:
        """Removes the directory if nothing is in it."""
        _remove_if_empty(self.root)

    def versions(self) -> list[Version]:
        """Versions with a table on disk, newest file first."""
        times_ns = self._times_ns()
        return sorted(times_ns, key=lambda version: times_ns[version], reverse=True)

    def find_table(self, version: Version) -> Path:
        """The table of a version.

        Raises:
            ControlError: there is none (names those there are), or there are several.
        """
        tables = self.tables(version)
        if not tables:
            known = ", ".join(str(each) for each in self.versions()) or "none"
            wanted = self.root / str(version) / f"{self.dict_name or '*'}_part{self._shard_text()}"
            raise ControlError(f"no table {wanted}.table; versions on disk: {known}")
        if len(tables) > 1:
            names = ", ".join(path.name for path in tables)
            raise ControlError(
                f"{self.root / str(version)} holds several tables ({names}): say which one with"
                " --dict_name and --shard"
            )
        return tables[0]

    def tables(self, version: Version) -> list[Path]:
        """Every table of the version that this server may serve."""
        return self._files(version, "table")

    def files(self, version: Version) -> list[Path]:
        """All that this server may serve the version from."""
        return self._files(version, "table", "folded", "over")

    def folded(self, version: Version) -> Path | None:
        """The whole table that a patch was folded into, with its base and all patches before."""
        return next(iter(self._files(version, "folded")), None)

    def laid_over(self, version: Version) -> list[tuple[Version, Path]]:
        """What was merged for a patch: tables of all changes since the whole table of a version,
        that of the newest first."""
        found = []
        for path in self._files(version, "over"):
            with contextlib.suppress(ControlError):
                found.append((Version.parse(_field_of(path, "over") or ""), path))
        return sorted(found, key=lambda each: each[1].stat().st_mtime_ns, reverse=True)

    def temporary_path(self, version: Version) -> Path:
        """A path for a table that is being written; its directory is there."""
        directory = self.root / str(version)
        directory.mkdir(exist_ok=True)
        return directory / f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}"

    def place(self, temporary: Path, version: Version, dict_name: str, shard: int) -> Path:
        """Moves a verified, fsynced table into place; it takes the place of any other that this
        server could serve for the version.

        Raises:
            ControlError: `dict_name` cannot be part of a file name.
        """
        if not DICT_NAME.fullmatch(dict_name):
            raise ControlError(f"dict_name {dict_name!r} is not letters, digits, '_', '.' and '-'")
        target = self.root / str(version) / f"{dict_name}_part{shard}.table"
        temporary.rename(target)
        # What was made of the table before goes too.
        self._keep_only(version, {target})
        return target

    def place_laid_over(self, temporary: Path, version: Version, whole_version: Version) -> Path:
        """Moves all changes since a whole table into place, beside the patch that was shipped;
        what was merged for the patch before goes.

        Raises:
            ControlError: the patch is not there any more; nothing is left.
        """
        target = self._place_beside(temporary, version, f".over_{whole_version}")
        self._keep_only(version, {target, *self._files(version, "table", "folded")})
        return target

    def place_folded(self, temporary: Path, version: Version) -> Path:
        """Moves a whole table into place, beside the patch that it was made for; what was merged
        for the patch goes.

        Raises:
            ControlError: as `place_laid_over`.
        """
        target = self._place_beside(temporary, version, ".folded")
        self._keep_only(version, {target, *self._files(version, "table")})
        return target

    def _place_beside(self, temporary: Path, version: Version, suffix: str) -> Path:
        try:
            target = self.find_table(version).with_suffix(suffix)
            temporary.rename(target)
        except BaseException:
            self.discard(temporary)
            raise
        return target

    def discard(self, temporary: Path) -> None:
        """Removes a temporary table, and the version's directory when it holds nothing else."""
        temporary.unlink(missing_ok=True)
        _remove_if_empty(temporary.parent)

    def prune(self, current: Version, in_use: Collection[Version], keep_versions: int) -> None:
        """Removes tables older than the current one, until `keep_versions` are left with those in
        use, and the whole tables that these are laid over. Newer ones always stay: they may be
        downloaded and not loaded yet."""
        times_ns = self._times_ns()
        current_ns = times_ns.get(current, 0)
        older = [v for v in self.versions() if times_ns.get(v, current_ns) < current_ns]
        unused = [version for version in older if version not in in_use]
        unneeded = set(unused[max(keep_versions - len(in_use), 0) :])
        for version in times_ns.keys() - unneeded:
            unneeded -= {whole_version for whole_version, _ in self.laid_over(version)}
        for version in unneeded:
            for path in self.files(version):
                path.unlink(missing_ok=True)
            _remove_if_empty(self.root / str(version))

    def _times_ns(self) -> dict[Version, int]:
        """When the table of each version on disk was written."""
        times_ns: dict[Version, int] = {}
        for path in self.root.glob("*_*/*.table"):
            version = _version_of(path)
            if version is not None and self._is_ours(path):
                with contextlib.suppress(FileNotFoundError):
                    times_ns[version] = max(times_ns.get(version, 0), path.stat().st_mtime_ns)
        return times_ns

    def _files(self, version: Version, *kinds: str) -> list[Path]:
        """Files of the version that this server may serve: "table", "folded" or "over"."""
        directory = self.root / str(version)
        return sorted(
            path
            for path in directory.glob("*_part*.*")
            if self._is_ours(path) and any(_field_of(path, kind) for kind in kinds)
        )

    def _keep_only(self, version: Version, kept: Collection[Path]) -> None:
        """Removes the other files of a version, what is needed being in place for good."""
        directory = self.root / str(version)
        sync_directory(directory)
        others = set(self.files(version)) - set(kept)
        for path in others:
            path.unlink()
        if others:
            sync_directory(directory)

    def _is_ours(self, path: Path) -> bool:
        match = _FILE_NAME.fullmatch(path.name)
        return (
            match is not None
            and self.dict_name in ("", match["dict_name"])
            and self.shard in (None, int(match["shard"]))
        )

    def _shard_text(self) -> str:
        return "*" if self.shard is None else str(self.shard)


def _field_of(path: Path, field: str) -> str | None:
    match = _FILE_NAME.fullmatch(path.name)
    return None if match is None else match[field]


def _version_of(table: Path) -> Version | None:
    try:
        version = Version.parse(table.parent.name)
    except ControlError:
        return None
    return version if str(version) == table.parent.name else None


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
