"""Donefiles: one JSON object a line, appended by the trainer when a pass is complete.

base.txt names the bases; patch.txt beside it the patches, each by the `key` of its base.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cube_core.errors import ControlError, DonefileError
from cube_core.versions import Version
from cube_transfer.remote import child_url, relative_url, scheme_of

BASE_FILE_NAME = "base.txt"
PATCH_FILE_NAME = "patch.txt"
LINE_BYTES_MAX = 16 << 10


@dataclass(frozen=True)
class DonefileEntry:
    """One usable line: a base or a patch. Locations are resolved against the donefile's
    directory."""

    where: str
    """`address:line`."""
    id: str
    key: str
    base: str
    """Id of the base: its own, or that of the base with the patch's key; "" while nobody has
    looked that up."""
    input: str
    dense: str
    """"" when the pass has no dense model."""
    fields: Mapping[str, Any]
    """The line's object as it stands, unknown fields included."""

    @property
    def version(self) -> Version:
        return Version(self.base, self.id)

    def require_version_said(self) -> None:
        """Raises DonefileError when the line has a `version`, and it is another one."""
        said = self.fields.get("version", "")
        if said and said != str(self.version):
            kind = "a base must be <id>_<id>" if self.version.is_base else "this patch must be"
            raise DonefileError(f"{self.where}: version {said!r} of {kind}, here {self.version}")


@dataclass(frozen=True)
class DonefileReading:
    """What a donefile says: the usable lines in order, and why others cannot be used."""

    entries: tuple[DonefileEntry, ...] = ()
    errors: tuple[DonefileError, ...] = ()
    incomplete_line: str = ""
    """`address:line` of a last line without newline, which is still being written."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    id: str = Field(min_length=1)
    key: str = ""
    input: str = Field(min_length=1)
    dense: str = ""
    version: str = ""


def donefile_address(address: str) -> str:
    """Path or URL of the file itself: `address` may be the directory that holds base.txt."""
    if scheme_of(address):
        is_file = bool(PurePosixPath(urlsplit(address).path).suffix)
        return address if is_file else child_url(address, BASE_FILE_NAME)
    local = Path(address)
    is_file = local.is_file() or (bool(local.suffix) and not local.is_dir())
    return str(local if is_file else local / BASE_FILE_NAME)


def patch_file_address(donefile: str) -> str:
    """Path or URL of the patches' donefile, beside that of the bases."""
    return resolve(PATCH_FILE_NAME, donefile)


def resolve(location: str, donefile: str) -> str:
    """An absolute path or a URL stays as it is; anything else is relative to the donefile's
    directory."""
    if scheme_of(location) or Path(location).is_absolute():
        return location
    if scheme_of(donefile):
        return relative_url(donefile, location)
    return str(Path(donefile).parent / location)


def parse_donefile(data: bytes, address: str, *, of_patches: bool = False) -> DonefileReading:
    """Reads the lines of a donefile.

    A bad line is reported and does not hide the others. Passes only get newer down the file: an
    id that is listed twice, or a numeric id below an earlier one, is an error of its line; among
    patches, of those with the same key.
    """
    entries: list[DonefileEntry] = []
    errors: list[DonefileError] = []
    orders: dict[str, _Order] = {}
    *complete, rest = data.split(b"\n")
    for line_number, line in enumerate(complete, start=1):
        if not line.strip():
            continue
        try:
            entry = _parse_line(line, f"{address}:{line_number}", address, of_patches)
            group = entry.key if of_patches else ""
            orders.setdefault(group, _Order()).admit(entry, line_number)
            entries.append(entry)
        except DonefileError as error:
            errors.append(error)
    incomplete_line = f"{address}:{len(complete) + 1}" if rest.strip() else ""
    return DonefileReading(tuple(entries), tuple(errors), incomplete_line)


def _parse_line(line: bytes, where: str, address: str, of_patches: bool) -> DonefileEntry:
    if len(line) > LINE_BYTES_MAX:
        raise DonefileError(f"{where}: longer than LINE_BYTES_MAX = {LINE_BYTES_MAX} bytes")
    try:
        parsed = _Line.model_validate_json(line)
        Version.parse(f"{parsed.id}_{parsed.id}")
    except ValidationError as error:
        raise DonefileError(f"{where}: {'; '.join(_problems(error))}") from error
    except ControlError as error:
        raise DonefileError(
            f"{where}: id {parsed.id!r} is not 1 to 64 letters, digits, '.' and '-'"
        ) from error
    if of_patches and not parsed.key:
        raise DonefileError(f"{where}: key: a patch needs the key of its base")
    entry = DonefileEntry(
        where=where,
        id=parsed.id,
        key=parsed.key or parsed.id,
        base="" if of_patches else parsed.id,
        input=resolve(parsed.input, address),
        dense=resolve(parsed.dense, address) if parsed.dense else "",
        # As the state gives them back: it has no NaN, which is not even equal to itself.
        fields=parsed.model_dump(mode="json", exclude_unset=True),
    )
    if not of_patches:
        entry.require_version_said()
    return entry


class _Order:
    """Lines seen so far: ids are unique, and numeric ones only grow."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}
        self._newest_id = ""

    def admit(self, entry: DonefileEntry, line_number: int) -> None:
        if entry.id in self._lines:
            raise DonefileError(
                f"{entry.where}: id {entry.id} is already in line {self._lines[entry.id]}"
            )
        if entry.id.isdecimal():
            newest = self._newest_id
            if newest and int(entry.id) < int(newest):
                raise DonefileError(
                    f"{entry.where}: out of order: id {entry.id} is below id {newest} of line "
                    f"{self._lines[newest]}"
                )
            self._newest_id = entry.id
        self._lines[entry.id] = line_number


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        yield f"{field}: {problem['msg']}" if field else problem["msg"]
