"""One process a directory."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from pathlib import Path

from cube_core.errors import CubeError

_POLL_INTERVAL_S = 0.05
log = logging.getLogger(__name__)

_LOCKS = Path("/proc/locks")


class DirectoryLock:
    """Holds a directory for this process: until it is closed, or the process and those that were
    forked from it have ended.

    Args:
        role: who takes such directories, for the message.
        flag: by which another directory is given to a process.
        timeout_s: how long one that just ends is waited for. Blocks meanwhile.

    Raises:
        error: another process has it.
        OSError: it cannot be opened.
    """

    def __init__(
        self,
        directory: Path,
        role: str,
        flag: str,
        error: type[CubeError],
        *,
        timeout_s: float = 0.0,
    ) -> None:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._descriptor: int | None = descriptor
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() < deadline_s:
                    time.sleep(_POLL_INTERVAL_S)
                    continue
                owner = _owner_of(descriptor)
                self.close()
                raise error(
                    f"{directory}: is in use by another {role} (pid {owner}); stop it, or give"
                    f" this one its own {flag}"
                ) from None
            except OSError as failed:
                # Such as NFS, which locks no directories.
                log.warning("%s: others are not kept from it: %s", directory, failed.strerror)
                return

    def close(self) -> None:
        """Lets others take it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _owner_of(descriptor: int) -> str:
    """The pid of who locked what is open here, as Linux tells it."""
    inode = f":{os.fstat(descriptor).st_ino}"
    for line in _LOCKS.read_text(encoding="ascii").splitlines():
        # 1: FLOCK  ADVISORY  WRITE 708 fe:00:262147 0 EOF
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].endswith(inode):
            return fields[4]
    return "unknown"
