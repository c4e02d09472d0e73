"""The pages of the documentation, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """A block of code: where it begins, its language ("" without one), its text."""

    place: str
    language: str
    text: str


def page(path: str) -> str:
    return (ROOT / "docs" / path).read_text(encoding="utf-8")


def section(text: str, title: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}$", text, re.MULTILINE)
    assert match is not None, f"no heading {title!r}"
    rest = text[match.end() :]
    after = re.search(rf"^#{{1,{len(match[1])}}} ", rest, re.MULTILINE)
    return rest[: after.start()] if after else rest


def tables(text: str) -> Iterator[list[list[str]]]:
    """The tables of a page: rows of cells, the head first, without the line of dashes."""
    rows: list[list[str]] = []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            rows.append([each.strip() for each in re.split(r"(?<!\\)\|", line.strip("|"))])
        elif rows:
            yield [rows[0], *rows[2:]]
            rows = []


def names(cell: str) -> list[str]:
    """What stands as code in a cell."""
    return _CODE.findall(cell)


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of code of a page."""
    lines: list[str] | None = None
    language, begin = "", 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.lstrip().startswith("```"):
            if lines is not None:
                lines.append(line)
        elif lines is None:
            lines, language, begin = [], line.strip().removeprefix("```"), number
        else:
            yield Block(f"{path.relative_to(ROOT)}:{begin}", language, "\n".join(lines))
            lines = None


def markdown_files() -> list[Path]:
    """All pages: of the documentation, and those beside it."""
    globs = ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md")
    return sorted({path for glob in globs for path in ROOT.glob(glob)})
