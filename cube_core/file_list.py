"""What whoever wrote a directory says of its files, in a manifest: names, sizes, checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cube_core._native import crc32c, crc32c_file

NAME_BYTES_MAX = 240
"""Of a part of a name, so that names of temporary files are within what file systems take."""

_BLOCK_BYTES = 1 << 20


def _plain_name(name: str) -> str:
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise ValueError("is no plain file name")
    return name


def _name_below(name: str) -> str:
    parts = name.split("/")
    try:
        for part in parts:
            _plain_name(part)
    except ValueError:
        raise ValueError("is no plain file name, and no path of such names") from None
    if any(len(part.encode()) > NAME_BYTES_MAX for part in parts):
        raise ValueError(f"is longer than NAME_BYTES_MAX = {NAME_BYTES_MAX} bytes")
    return name


class ListedFile(BaseModel):
    """A file of the directory; `size` in bytes, `md5` in hexadecimal, None: not said."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Annotated[str, AfterValidator(_plain_name)]
    size: int | None = Field(default=None, ge=0)
    crc32c: int | None = Field(default=None, ge=0, le=0xFFFFFFFF)
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None

    @property
    def has_checksum(self) -> bool:
        return self.crc32c is not None or self.md5 is not None


class PassFile(ListedFile):
    """A file of a pass; `name` may lead into subdirectories, with `/` between its parts."""

    name: Annotated[str, AfterValidator(_name_below)]


class _FileList(BaseModel):
    files: tuple[PassFile, ...]


def parse_file_list(data: bytes) -> tuple[PassFile, ...]:
    """Reads the JSON of a pass's manifest: {"files": [{"name": …, "size": …, "crc32c": …}, …]}.

    Raises:
        ValueError: the field, and what is wrong.
    """
    try:
        files = _FileList.model_validate_json(data).files
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    if not files:
        raise ValueError("files: names no file")
    try:
        require_places(file.name for file in files)
    except ValueError as error:
        raise ValueError(f"files: {error}") from error
    return files


def require_places(names: Iterable[str]) -> None:
    """Raises ValueError when two files cannot be in one directory together: of the same name, or
    one with the name of another's directory."""
    files: set[str] = set()
    for name in names:
        if name in files:
            raise ValueError(f"{name} is listed twice")
        files.add(name)
    for name in files:
        for directory in PurePosixPath(name).parents:
            if str(directory) in files:
                raise ValueError(f"{directory} is listed as a file, and as a directory of {name}")


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, with its field."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    return f"{field}: {problem}" if field else problem


class Digest:
    """Size and checksums of a file that is read or written block by block.

    Args:
        expected: what its source vouches for; None = nothing.
        said_by: who says so, for errors.
    """

    def __init__(self, expected: ListedFile | None, said_by: str = "the manifest") -> None:
        self._expected = expected
        self._said_by = said_by
        self.reset()

    @classmethod
    def of_file(cls, path: Path, expected: ListedFile) -> Digest:
        """Of a whole file, at once where that does without the GIL."""
        digest = cls(expected)
        if expected.md5 is None:
            digest.size = path.stat().st_size
            digest.crc32c = crc32c_file(str(path))
            return digest
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest

    def reset(self) -> None:
        wants_md5 = self._expected is not None and self._expected.md5
        self.crc32c = 0
        self._md5 = hashlib.md5(usedforsecurity=False) if wants_md5 else None
        self.size = 0

    def update(self, block: bytes) -> None:
        self.size += len(block)
        self.crc32c = crc32c(block, self.crc32c)
        if self._md5 is not None:
            self._md5.update(block)

    def problem(self) -> str:
        """How the bytes differ from what was expected; "" when they do not."""
        expected = self._expected
        if expected is None:
            return ""
        if expected.size is not None and self.size != expected.size:
            return (
                f"{self.size} bytes, but {self._said_by} says {expected.size}: "
                "the file is truncated or still being written"
            )
        if expected.crc32c is not None and self.crc32c != expected.crc32c:
            return (
                f"crc32c {self.crc32c:08x}, but {self._said_by} says {expected.crc32c:08x}: "
                "the file is corrupt"
            )
        if self._md5 is not None and self._md5.hexdigest() != expected.md5:
            return (
                f"md5 {self._md5.hexdigest()}, but {self._said_by} says {expected.md5}: "
                "the file is corrupt"
            )
        return ""


def file_problem(path: Path, listed: ListedFile) -> str:
    """Reads a file and tells how it differs from what its manifest says; "" when it does not.

    Raises:
        OSError: it cannot be read.
    """
    return Digest.of_file(path, listed).problem()
