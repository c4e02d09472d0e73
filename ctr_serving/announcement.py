"""How `reloadable_meta` announces a new model: the five `reloadable_type`s."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from cube_core.errors import ModelError

RELOADABLE_TYPES = ("timestamp_ne", "timestamp_gt", "md5sum", "revision", "none")

_REVISION = re.compile(r"\s*(\d+)(?:_(\d+))?\s*")
_BYTES_MAX = 1 << 20

Mark = tuple[int, ...] | str


class Announcement:
    """Looks at the file; `mark` is what it says now, and `is_new` compares two of them.

    - timestamp_ne: another modification time; timestamp_gt: a later one;
    - md5sum: other content;
    - revision: its text is a larger number, or `<base>_<version>` of larger ones;
    - none: nothing is ever announced.
    """

    def __init__(self, kind: str, path: Path | None) -> None:
        self._kind = kind
        self._path = path

    def mark(self) -> Mark | None:
        """None when the file is away, which announces nothing.

        Raises:
            ModelError: the file is no revision, or larger than 1 MiB.
        """
        if self._path is None or self._kind == "none":
            return None
        try:
            if self._kind.startswith("timestamp"):
                return (self._path.stat().st_mtime_ns,)
            with self._path.open("rb") as file:
                content = file.read(_BYTES_MAX + 1)
        except OSError:
            return None
        if len(content) > _BYTES_MAX:
            raise ModelError(f"{self._path}: is larger than {_BYTES_MAX} bytes")
        if self._kind == "md5sum":
            return hashlib.md5(content, usedforsecurity=False).hexdigest()
        match = _REVISION.fullmatch(content.decode("latin-1"))
        if match is None:
            raise ModelError(
                f"{self._path}: {content[:40]!r} is no revision: a number or <base>_<version>"
            )
        return tuple(int(number) for number in match.groups() if number is not None)

    def is_new(self, mark: Mark, served: Mark | None) -> bool:
        """Whether `mark` announces another model than `served` did."""
        if served is None:
            return True
        if self._kind in ("timestamp_gt", "revision"):
            return isinstance(mark, tuple) and isinstance(served, tuple) and mark > served
        return mark != served
