"""Which files of a pass are input, told by their names."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

INDEX_NAME = "index.n"
"""In every directory of a shard that the original cube-builder wrote."""


def is_visible(name: str) -> bool:
    """Whether a file or directory of this name is input."""
    return not name.startswith(("_", "."))


def input_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are input, in their order; each relative to the pass, with `/`.

    As `sources.source_files` finds them: none that begins with `_` or `.`, nor in a directory that
    does; where there are shards of the original, what is in their directories alone.
    """
    found = [PurePosixPath(name) for name in names if all(map(is_visible, name.split("/")))]
    shards = {path.parent for path in found if path.name == INDEX_NAME}
    return [str(path) for path in found if not shards or path.parent in shards]
