"""How much of a machine's disk a pass may take."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

from cube_core.conf.transfer_conf import DOWNLOAD_BYTES_MAX, PASS_BYTES_MAX
from cube_core.errors import DeployError
from cube_core.file_list import ListedFile


@dataclass(frozen=True)
class ByteLimits:
    """The fields of these names of transfer.conf."""

    download_bytes_max: int = DOWNLOAD_BYTES_MAX
    pass_bytes_max: int = PASS_BYTES_MAX


class PassBytes:
    """Counts the bytes of a pass as they come, several files at once.

    Args:
        taken: what is there already.
    """

    def __init__(self, limits: ByteLimits, taken: int = 0) -> None:
        self._limits = limits
        self._taken = taken
        self._lock = threading.Lock()

    def require_room_for(self, files: Iterable[ListedFile], where: str) -> None:
        """Raises DeployError when the files are listed with more bytes than the pass may have."""
        self._require(self._taken + sum(file.size or 0 for file in files), where)

    def require_file(self, size: int, where: str) -> None:
        """Raises DeployError when a file that is downloaded has more bytes than it may."""
        if size > self._limits.download_bytes_max:
            raise DeployError(
                f"{where}: more than download_bytes_max = {self._limits.download_bytes_max} bytes;"
                " raise it in transfer.conf if the file is right"
            )

    def add(self, count: int, where: str) -> None:
        """Counts bytes, or with a negative `count` gives them back.

        Raises:
            DeployError: the pass has more than it may.
        """
        with self._lock:
            self._taken += count
            taken = self._taken
        if count > 0:
            self._require(taken, where)

    def _require(self, taken: int, where: str) -> None:
        if taken > self._limits.pass_bytes_max:
            raise DeployError(
                f"{where}: the pass has more than pass_bytes_max = {self._limits.pass_bytes_max}"
                " bytes; raise it in transfer.conf if the pass is right"
            )
