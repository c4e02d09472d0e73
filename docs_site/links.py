"""Links between pages and files of the repository, as they are written for readers of the source.

A page in `docs/` may link to `../../conf/cluster.yml`, and `SECURITY.md` to `docs/reference/…`. On
the site, what stands outside of `docs/` is found under `repository/`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

DOCS = "docs/"
OUTSIDE = "repository/"
# Pages beside `docs/`, whose links are thus checked as well.
_PAGES = ("*.md", "deploy/**/*.md", "examples/**/*.md")

_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_SCHEME = re.compile(r"[a-z][a-z+.-]*:", re.IGNORECASE)
_FENCE = re.compile(r"^\s*```")


def site_path(repository_path: str) -> str:
    """Where a file of the repository is on the site."""
    if repository_path.startswith(DOCS):
        return repository_path.removeprefix(DOCS)
    return OUTSIDE + repository_path


def repository_path(site: str) -> str:
    """The file of the repository that stands there on the site."""
    return site.removeprefix(OUTSIDE) if site.startswith(OUTSIDE) else DOCS + site


def linked_files(page: str, markdown: str) -> Iterator[str]:
    """Files of the repository that a page of it links to.

    Args:
        page: path of the page in the repository.
    """
    directory = posixpath.dirname(page)
    for match in _links(markdown):
        if not _SCHEME.match(match[2]):
            yield posixpath.normpath(posixpath.join(directory, match[2]))


def outside_files(root: Path) -> set[str]:
    """Files outside of `docs/` that are on the site: pages, and what pages link to, directly or
    through one another."""
    found = {path.relative_to(root).as_posix() for glob in _PAGES for path in root.glob(glob)}
    pending = [path.relative_to(root).as_posix() for path in (root / DOCS).rglob("*.md")]
    pending += found
    while pending:
        page = pending.pop()
        for target in linked_files(page, (root / page).read_text(encoding="utf-8")):
            if target.startswith((DOCS, "../")) or target in found or not (root / target).is_file():
                continue
            found.add(target)
            if target.endswith(".md"):
                pending.append(target)
    return found


def for_the_site(page: str, markdown: str, root: Path) -> str:
    """The text of a page with links that lead to the same files on the site.

    Args:
        page: path of the page in the repository.
    """
    directory = posixpath.dirname(page)
    here = posixpath.dirname(site_path(page))

    def moved(match: re.Match[str]) -> str:
        if _SCHEME.match(match[2]):
            return match[0]
        target = posixpath.normpath(posixpath.join(directory, match[2]))
        if target.startswith("../") or not (root / target).is_file():
            # Left as it is: the build names it.
            return match[0]
        return match[1] + posixpath.relpath(site_path(target), here or ".") + match[3]

    lines = markdown.split("\n")
    for number in _prose(lines):
        lines[number] = _LINK.sub(moved, lines[number])
    return "\n".join(lines)


def _links(markdown: str) -> Iterator[re.Match[str]]:
    lines = markdown.split("\n")
    for number in _prose(lines):
        yield from _LINK.finditer(lines[number])


def _prose(lines: list[str]) -> Iterator[int]:
    """Numbers of the lines that are in no block of code."""
    in_code = False
    for number, line in enumerate(lines):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code:
            yield number
