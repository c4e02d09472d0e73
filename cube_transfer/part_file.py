"""A file that is being downloaded, and survives the attempts it takes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from pydantic import BaseModel

from cube_core.errors import DeployError
from cube_core.file_list import Digest
from cube_core.replace_file import replace_file
from cube_transfer.pass_bytes import PassBytes
from cube_transfer.remote import FileFacts, RemoteFile, shown

CHECKPOINT_BYTES = 64 << 20
"""So much at most is read again after the daemon was killed, where no manifest has a checksum."""
_READ_BYTES = 1 << 20


class StoppedError(OSError):
    """The bytes are not wanted any more."""


class Provenance(BaseModel):
    """What is known of the bytes of a download, kept beside them until the pass is complete: so
    many of them are on disk, and of which file they are."""

    identity: str
    size: int
    crc32c: int
    md5: str | None = None
    """Of the whole file, as its source says."""

    @classmethod
    def read(cls, target: Path) -> Provenance | None:
        """Of the file that is, or will be, `target`; None when nothing is known."""
        try:
            return cls.model_validate_json(provenance_path(target).read_bytes())
        except (FileNotFoundError, ValueError):
            return None


def part_path(target: Path) -> Path:
    """Where `target` is until it is complete."""
    return target.with_name(f".{target.name}.part")


def provenance_path(target: Path) -> Path:
    """Where the `Provenance` of `target`, or of its part, is kept."""
    return target.with_name(f".{target.name}.from")


class PartFile:
    """A `Sink` beside its place, `.<name>.part`. Blocks on the disk.

    What an earlier attempt left is taken on, when a checksum will tell whether it was right, or
    when it is known of which file it is.

    Args:
        room: for the bytes, with those of the other files of the pass.

    Raises:
        DeployError: the file is listed with more bytes than there may be.
        OSError: it cannot be written.
    """

    def __init__(self, target: Path, file: RemoteFile, room: PassBytes) -> None:
        self._target = target
        self.where = shown(file.url)
        """The address that errors name."""
        self._listed = file
        self._room = room
        self._expected = file.expected
        self._said_by = file.said_by
        room.require_file(file.expected.size or 0, self.where)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._path = part_path(target)
        self._digest = Digest(self._expected, self._said_by)
        self._lock = threading.Lock()
        self._stopped = False
        self._is_placed = False
        self._identity, self._saved_size = "", 0
        self._file = self._path.open("a+b")
        try:
            self._take_on()
        except BaseException:
            self._file.close()
            raise
        self.resumed = self.size > 0

    @property
    def size(self) -> int:
        return self._digest.size

    @property
    def identity(self) -> str:
        return self._identity

    @property
    def is_complete(self) -> bool:
        expected = self._listed.expected
        return expected.has_checksum and self.size == expected.size

    def begin(self, offset: int, facts: FileFacts) -> None:
        self.resumed = offset > 0
        if offset:
            return
        self._drop()
        if not self._listed.expected.has_checksum:
            self._identity = facts.identity
            self._expect_md5(facts.md5)
        self._room.require_file(facts.size or 0, self.where)

    def write(self, block: bytes) -> None:
        with self._lock:
            if self._stopped:
                raise StoppedError(f"{self.where}: the download was stopped")
            self._file.write(block)
            self._digest.update(block)
            if self._identity and self.size - self._saved_size >= CHECKPOINT_BYTES:
                self._save_provenance()
        try:
            self._require_wanted(len(block))
        except DeployError:
            self._discard()
            raise

    def finish(self) -> None:
        """Puts the file into place.

        Raises:
            DeployError: it is not what was expected.
            OSError: it is not, but may be when it is read anew, without an earlier attempt's part.
        """
        problem = self._digest.problem()
        if problem:
            self._discard()
            if self.resumed:
                raise OSError(f"{self.where}: {problem}; it is read anew")
            raise DeployError(f"{self.where}: {problem}")
        if self._identity:
            self._save_provenance()
        else:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._path.replace(self._target)
        self._is_placed = True

    def close(self) -> None:
        """What is there stays for the next attempt, if that can use it."""
        with self._lock:
            self._stopped = True
            try:
                if self._identity and self._path.exists():
                    self._save_provenance()
            finally:
                self._file.close()
        may_go_on = self._identity or self._listed.expected.has_checksum
        if not self._is_placed and not (self.size and may_go_on):
            self._discard()

    def _take_on(self) -> None:
        known = Provenance.read(self._target)
        left = os.fstat(self._file.fileno()).st_size
        if self._listed.expected.has_checksum:
            self._read(left)
        elif known is not None and known.size <= left:
            self._expect_md5(known.md5)
            self._read(known.size)
            if self._digest.crc32c == known.crc32c:
                self._identity, self._saved_size = known.identity, known.size
                self._file.truncate(known.size)
            else:
                self._digest.reset()
        if not self.size:
            self._file.truncate(0)
        self._room.add(self.size, self.where)

    def _discard(self) -> None:
        self._path.unlink(missing_ok=True)
        provenance_path(self._target).unlink(missing_ok=True)

    def _read(self, size: int) -> None:
        self._file.seek(0)
        while self.size < size and (block := self._file.read(min(_READ_BYTES, size - self.size))):
            self._digest.update(block)

    def _drop(self) -> None:
        self._room.add(-self.size, self.where)
        self._file.truncate(0)
        self._digest.reset()
        self._saved_size = 0

    def _expect_md5(self, md5: str | None) -> None:
        """What the source says, where no manifest says more. Nothing may have been read yet."""
        listed = self._listed
        self._expected = listed.expected.model_copy(update={"md5": md5})
        self._said_by = "the source" if md5 else listed.said_by
        self._digest = Digest(self._expected, self._said_by)

    def _require_wanted(self, count: int) -> None:
        self._room.add(count, self.where)
        self._room.require_file(self.size, self.where)
        expected_size = self._expected.size
        if expected_size is not None and self.size > expected_size:
            raise DeployError(
                f"{self.where}: more than {expected_size} bytes, but {self._said_by} says so many"
            )

    def _save_provenance(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        known = Provenance(
            identity=self._identity,
            size=self.size,
            crc32c=self._digest.crc32c,
            md5=self._expected.md5,
        )
        replace_file(provenance_path(self._target), known.model_dump_json())
        self._saved_size = self.size


class BytesSink:
    """A `Sink` in memory.

    Args:
        limit: bytes, and the name of that limit for the error.
    """

    def __init__(self, limit: int, limit_name: str) -> None:
        self.data = bytearray()
        self._limit = limit
        self._limit_name = limit_name

    @property
    def size(self) -> int:
        return 0

    @property
    def identity(self) -> str:
        return ""

    def begin(self, offset: int, facts: FileFacts) -> None:
        self.data.clear()

    def write(self, block: bytes) -> None:
        self.data += block
        if len(self.data) > self._limit:
            raise OSError(f"more than {self._limit_name} = {self._limit} bytes")
