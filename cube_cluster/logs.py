"""`cube logs`: the ends of logs, and what is added to them."""

from __future__ import annotations

import contextlib
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
    with contextlib.ExitStack() as stack:
        tails = {
            name: stack.enter_context(contextlib.closing(_Tail(path, count)))
            for name, path in paths.items()
        }
        while True:
            for name, tail in tails.items():
                for line in tail.new_lines():
                    yield name, line
            if not forever:
                return
            pause.wait(_POLL_INTERVAL_S)


class _Tail:
    """The lines of one file from its last `count` ones on. What is written to it before it is put
    aside is read to its end, then the file that took its name; one that gets shorter is read from
    its begin."""

    def __init__(self, path: Path, count: int) -> None:
        self._path = path
        self._rest = b""
        self._file: BinaryIO | None = None
        self._open()
        if self._file is not None:
            self._file.seek(_begin_of_last(self._file, count))

    def new_lines(self) -> list[str]:
        data = self._read()
        if self._is_another():
            # Whoever wrote to it has ended: nothing is added any more.
            data += self._read()
            self._open()
            data += self._read()
        *complete, self._rest = (self._rest + data).split(b"\n")
        return [line.decode(errors="replace") for line in complete]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        self.close()
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self._file = None

    def _is_another(self) -> bool:
        """Whether the name stands for another file by now."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return self._file is None or not os.path.samestat(found, os.fstat(self._file.fileno()))

    def _read(self) -> bytes:
        if self._file is None:
            return b""
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._rest = b""
        return self._file.read()


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
