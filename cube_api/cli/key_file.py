"""Files of keys: one decimal number a line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import ConfError

_KEY_MIN = -(1 << 63)
_KEY_MAX = (1 << 64) - 1


def read_keys(path: Path) -> NDArray[np.uint64]:
    """All keys of a file, uint64[n], in its order; empty lines are skipped, and negative ids stand
    for their two's complement.

    Raises:
        ConfError: the file cannot be read or has no keys, or a line is none; names the line.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(str(path), "", f"cannot be read: {error}") from error
    lines = text.splitlines()
    keys = np.fromiter(
        (_key(path, number, line) for number, line in enumerate(lines, 1) if line.strip()),
        np.uint64,
    )
    if not len(keys):
        raise ConfError(str(path), "", "has no keys; write one decimal number a line")
    return keys


def _key(path: Path, number: int, line: str) -> int:
    text = line.strip()
    # int() alone takes underscores too, and is slow to refuse a line of a million digits.
    if len(text) <= 20 and text.removeprefix("-").isdecimal() and _KEY_MIN <= int(text) <= _KEY_MAX:
        return int(text) & _KEY_MAX
    raise ConfError(f"{path}:{number}", "", f"{text[:40]!r} is no decimal number of 64 bits")
