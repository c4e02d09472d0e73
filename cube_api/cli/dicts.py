"""The dict that a command line means."""

from __future__ import annotations

from pathlib import Path

from cube_core.conf.cube_conf import DictConf, read_cube_conf
from cube_core.errors import ConfError


def dict_of(
    config_file: Path, name: str, *, timeout_ms: int | None = None, retry: int | None = None
) -> DictConf:
    """The dict `name` of a `cube.conf`, or its only one when `name` is "".

    Args:
        timeout_ms, retry: in place of what the file says, when given.

    Raises:
        ConfError: the file cannot be used, has no such dict, or has several and none is named.
    """
    dicts = read_cube_conf(config_file)
    known = ", ".join(sorted(dicts))
    if not name and len(dicts) > 1:
        raise ConfError("command line", "--dict", f"name one of: {known}")
    found = dicts.get(name) if name else next(iter(dicts.values()))
    if found is None:
        raise ConfError(str(config_file), f"dict_name {name!r}", f"is not in it; it has: {known}")
    changes = {"timeout_ms": timeout_ms, "retry": retry}
    return found.model_copy(
        update={key: value for key, value in changes.items() if value is not None}
    )
