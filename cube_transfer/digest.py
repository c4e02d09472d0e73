"""Size and checksums of bytes that pass by."""

from __future__ import annotations

import hashlib

from cube_core._native import crc32c
from cube_core.errors import DeployError
from cube_transfer.manifest import ManifestFile


class Digest:
    """Of a file that is read or written block by block.

    Args:
        expected: what its source vouches for; None = nothing.
    """

    def __init__(self, expected: ManifestFile | None) -> None:
        self._expected = expected
        self.size = 0
        self.reset()

    def reset(self) -> None:
        wants_md5 = self._expected is not None and self._expected.md5
        self._crc32c = 0
        self._md5 = hashlib.md5(usedforsecurity=False) if wants_md5 else None
        self.size = 0

    def update(self, block: bytes) -> None:
        self.size += len(block)
        self._crc32c = crc32c(block, self._crc32c)
        if self._md5 is not None:
            self._md5.update(block)

    def problem(self) -> str:
        """How the bytes differ from what was expected; "" when they do not."""
        expected = self._expected
        if expected is None:
            return ""
        if expected.size is not None and self.size != expected.size:
            return (
                f"{self.size} bytes, but the manifest says {expected.size}: "
                "the file is truncated or still being written"
            )
        if expected.crc32c is not None and self._crc32c != expected.crc32c:
            return (
                f"crc32c {self._crc32c:08x}, but the manifest says {expected.crc32c:08x}: "
                "the file is corrupt"
            )
        if self._md5 is not None and self._md5.hexdigest() != expected.md5:
            return (
                f"md5 {self._md5.hexdigest()}, but the manifest says {expected.md5}: "
                "the file is corrupt"
            )
        return ""

    def require_expected(self, where: object) -> None:
        """Raises DeployError, naming `where`, when the bytes are not what was expected."""
        problem = self.problem()
        if problem:
            raise DeployError(f"{where}: {problem}")
