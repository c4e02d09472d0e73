"""Where a client's topology comes from: `cube.conf`, the files it names, DNS."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from cube_api._health import HealthBoard
from cube_api._topology import Topology
from cube_core.conf.cube_conf import DictConf, read_cube_conf
from cube_core.conf.naming import file_of, is_name

RESOLVE_INTERVAL_S = 5.0
"""How often DNS names are resolved again."""


class ConfSource:
    """Reads topologies, and tells when there may be another one.

    Args:
        conf: path of `cube.conf`, or its dicts by name.
    """

    def __init__(self, conf: Path | str | Mapping[str, DictConf], board: HealthBoard) -> None:
        self._path = None if isinstance(conf, Mapping) else Path(conf)
        self._confs = dict(conf) if isinstance(conf, Mapping) else {}
        self.origin = "cube.conf" if self._path is None else str(self._path)
        self._board = board
        self._marks: list[object] = []
        self._resolve_due_s = 0.0
        self.is_watched = self._path is not None

    def read(self) -> Topology:
        """Raises:
        ConfError: names the file and the field.
        """
        # Marks are taken first: what changes while it is read is then seen the next time.
        self._marks = self._marks_now(self._confs.values())
        self._resolve_due_s = time.monotonic() + RESOLVE_INTERVAL_S
        if self._path is not None:
            self._confs = read_cube_conf(self._path)
            self._marks = self._marks[:1] + self._marks_now(self._confs.values())[1:]
        addresses = _addresses(self._confs.values())
        self.is_watched = self._path is not None or any(
            file_of(each) is not None or is_name(each) for each in addresses
        )
        return Topology(self._confs, self.origin, self._board)

    def may_have_changed(self) -> bool:
        """A file is another one than when it was read, or names are due to be resolved again."""
        if self._marks_now(self._confs.values()) != self._marks:
            return True
        named = any(is_name(each) for each in _addresses(self._confs.values()))
        return named and time.monotonic() >= self._resolve_due_s

    def _marks_now(self, confs: Iterable[DictConf]) -> list[object]:
        files = [file_of(each) for each in _addresses(confs)]
        return [_mark(self._path), *(_mark(file) for file in files if file is not None)]


def _addresses(confs: Iterable[DictConf]) -> list[str]:
    return [address for conf in confs for address in conf.addresses()]


def _mark(path: Path | None) -> object:
    """What changes when a file is written or replaced, also behind a symbolic link."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
