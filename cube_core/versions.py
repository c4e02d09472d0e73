"""Names of versions: `<base>_<version>`, where base == version for a base pass."""

from __future__ import annotations

import re
from typing import NamedTuple

from cube_core.errors import ControlError

_PATTERN = re.compile(r"([0-9A-Za-z.\-]{1,64})_([0-9A-Za-z.\-]{1,64})")


class Version(NamedTuple):
    """Version of one dict: the base it stands on and its own id.

    Ids are what donefiles and `--cur_version` carry, mostly numbers; letters, digits, `.` and `-`
    are allowed, so that a version is always a safe file name.
    """

    base: str
    version: str

    @classmethod
    def parse(cls, text: str) -> Version:
        """Reads "<base>_<version>"; a leading slash (`version_path` of the original) is dropped,
        and a single id means a base.

        Raises:
            ControlError: anything that is not such a name, and so could leave its directory.
        """
        name = text.removeprefix("/")
        match = _PATTERN.fullmatch(name if "_" in name else f"{name}_{name}")
        if match is None or {".", ".."} & set(match.groups()):
            raise ControlError(
                f"version {text!r} is not <base>_<version> of letters, digits, '.' and '-'"
            )
        return cls(match[1], match[2])

    def __str__(self) -> str:
        return f"{self.base}_{self.version}"

    def is_after(self, other: Version) -> bool:
        """Whether the ids of both are numbers, and those of this one the later."""
        if not all(each.isdecimal() for each in (*self, *other)):
            return False
        return (int(self.base), int(self.version)) > (int(other.base), int(other.version))

    @property
    def is_base(self) -> bool:
        return self.base == self.version
