"""SIGINT, SIGTERM and SIGHUP as an exception that never falls into starting or stopping a
process."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interrupted(BaseException):
    """The demo was asked to end; `exit_code` is what a shell expects of that signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_code = 128 + signal_number


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_held_depth = 0
_pending: list[int] = []


def install() -> None:
    """From here on SIGINT, SIGTERM and SIGHUP raise Interrupted in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _on_signal)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Inside, a signal waits; it is raised at the end of the outermost block."""
    global _held_depth
    _held_depth += 1
    try:
        yield
    finally:
        _held_depth -= 1
        if not _held_depth and _pending:
            number = _pending[0]
            _pending.clear()
            raise Interrupted(number)


def _on_signal(number: int, frame: FrameType | None) -> None:
    if not _held_depth:
        raise Interrupted(number)
    _pending.append(number)
