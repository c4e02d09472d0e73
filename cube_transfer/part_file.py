"""A file that is being downloaded, and survives the attempts it takes."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from cube_core.errors import DeployError
from cube_core.file_list import Digest, ListedFile

_READ_BYTES = 1 << 20


class StoppedError(OSError):
    """The bytes are not wanted any more."""


class PartFile:
    """A `Sink` beside its place, `.<name>.part`. Blocks on the disk.

    What an earlier attempt left is taken on, when there is a checksum to tell whether it was right.

    Args:
        where: the address that errors are to name.
        bytes_max: the transfer.conf field `download_bytes_max`.

    Raises:
        DeployError: the manifest says that there are more than `bytes_max`.
        OSError: it cannot be written.
    """

    def __init__(
        self, target: Path, expected: ListedFile | None, where: str, bytes_max: int
    ) -> None:
        self._target = target
        self._where = where
        self._expected = expected
        self._bytes_max = bytes_max
        if expected is not None and expected.size is not None:
            self._require_room_for(expected.size)
        self._path = target.with_name(f".{target.name}.part")
        self._digest = Digest(expected)
        self._lock = threading.Lock()
        self._stopped = False
        self._may_resume = expected is not None and expected.has_checksum
        if not self._may_resume:
            self._path.unlink(missing_ok=True)
        self._file = self._path.open("a+b")
        self._file.seek(0)
        while block := self._file.read(_READ_BYTES):
            self._digest.update(block)
        self.resumed = self.size > 0

    @property
    def size(self) -> int:
        return self._digest.size

    @property
    def is_complete(self) -> bool:
        return self._expected is not None and self.size == self._expected.size

    def begin(self, offset: int) -> None:
        self.resumed = offset > 0
        if offset == 0 and self.size:
            self._file.truncate(0)
            self._digest.reset()

    def write(self, block: bytes) -> None:
        with self._lock:
            if self._stopped:
                raise StoppedError(f"{self._where}: the download was stopped")
            self._file.write(block)
            self._digest.update(block)
        expected = self._expected
        if expected is not None and expected.size is not None and self.size > expected.size:
            self._path.unlink(missing_ok=True)
            raise DeployError(
                f"{self._where}: more than {expected.size} bytes, but the manifest says so many"
            )
        if self.size > self._bytes_max:
            self._path.unlink(missing_ok=True)
            self._require_room_for(self.size)

    def _require_room_for(self, size: int) -> None:
        if size > self._bytes_max:
            raise DeployError(
                f"{self._where}: more than download_bytes_max = {self._bytes_max} bytes;"
                " raise it in transfer.conf if the file is right"
            )

    def finish(self) -> None:
        """Puts the file into place.

        Raises:
            DeployError: it is not what was expected.
            OSError: it is not, but may be when it is read anew, without an earlier attempt's part.
        """
        problem = self._digest.problem()
        if problem:
            self._path.unlink()
            if self.resumed:
                raise OSError(f"{self._where}: {problem}; it is read anew")
            raise DeployError(f"{self._where}: {problem}")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._path.replace(self._target)

    def close(self) -> None:
        """What is there stays for the next attempt, if that can use it."""
        with self._lock:
            self._stopped = True
            self._file.close()
        if not (self._may_resume and self.size):
            self._path.unlink(missing_ok=True)


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

    def begin(self, offset: int) -> None:
        self.data.clear()

    def write(self, block: bytes) -> None:
        self.data += block
        if len(self.data) > self._limit:
            raise OSError(f"more than {self._limit_name} = {self._limit} bytes")
