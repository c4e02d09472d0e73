"""The tree of errors is the one that its module draws."""

from __future__ import annotations

import inspect
import re

from cube_core import errors


def drawn_parents() -> dict[str, str]:
    """Parent of every class in the drawing of the module's docstring."""
    path: list[str] = []
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^    ((?:[│├└─ ]{4})*)(\w+Error)\b", line)
        if match is not None:
            depth = len(match[1]) // 4
            parents[match[2]] = path[depth - 1] if depth else "Exception"
            path[depth:] = [match[2]]
    return parents


def test_the_drawing_is_complete() -> None:
    classes = {
        name: cls.__bases__[0].__name__
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if cls.__module__ == errors.__name__
    }
    assert drawn_parents() == classes
