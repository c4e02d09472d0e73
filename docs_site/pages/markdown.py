"""Tables and text of pages that are made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells may have markup, but no bars of their own."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def plain(text: str) -> str:
    """Text that stands as it is, in a cell too."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return " ".join(escaped.replace("*", "\\*").replace("_", "\\_").split())


def code(text: str) -> str:
    return f"`{text}`" if text else ""
