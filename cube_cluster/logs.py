"""`cube logs`: the ends of logs, and what is added to them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

_POLL_INTERVAL_S = 0.2
_BLOCK_BYTES = 16 << 10


def follow(paths: Mapping[str, Path], count: int, *, forever: bool) -> Iterator[tuple[str, str]]:
    """Yields the last `count` lines of each log with its name; then, `forever`, every line that is
    added. A file that is not there has no lines yet."""
    pause = threading.Event()
    tails = {name: _Tail(path, count) for name, path in paths.items()}
    while True:
        for name, tail in tails.items():
            for line in tail.new_lines():
                yield name, line
        if not forever:
            return
        pause.wait(_POLL_INTERVAL_S)


class _Tail:
    """The lines of one file from its last `count` ones on; a file that gets shorter is read from
    its begin."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._rest = b""
        try:
            with path.open("rb") as file:
                self._offset = _begin_of_last(file, count)
        except FileNotFoundError:
            self._offset = 0

    def new_lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self._offset:
                    self._offset, self._rest = 0, b""
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        *complete, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in complete]


def _begin_of_last(file: BinaryIO, count: int) -> int:
    """Where the last `count` complete lines begin."""
    begin = end = file.seek(0, os.SEEK_END)
    data = b""
    # One newline more than lines: that which ends the line before them.
    while begin > 0 and data.count(b"\n") <= count:
        size = min(_BLOCK_BYTES, begin)
        begin -= size
        file.seek(begin)
        data = file.read(size) + data
    newlines = [index for index, byte in enumerate(data) if byte == 10]
    if len(newlines) <= count:
        return begin
    return end - len(data) + newlines[-count - 1] + 1
