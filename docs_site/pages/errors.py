"""The tree of errors."""

from __future__ import annotations

import textwrap

from cube_core import errors


def error_tree() -> str:
    """The drawing in the docstring of `cube_core.errors`, as a block of code."""
    paragraphs = (errors.__doc__ or "").split("\n\n")
    drawing = next(each for each in paragraphs if each.lstrip().startswith("CubeError"))
    return f"```\n{textwrap.dedent(drawing)}\n```"
