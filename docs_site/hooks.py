"""The hooks of mkdocs.yml."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

from docs_site.links import for_the_site, outside_files, repository_path, site_path
from docs_site.pages import PAGES
from docs_site.pages.errors import error_tree

_TREE = "<!-- tree of errors -->"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    root = _root(config)
    for path in sorted(outside_files(root)):
        file = File.generated(
            config,
            site_path(path),
            abs_src_path=str(root / path),
            inclusion=InclusionLevel.NOT_IN_NAV,
        )
        files.append(file)
    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    add_to_nav(config.nav or [], [file.src_uri for file in files.documentation_pages()])
    return files


def add_to_nav(nav: list[Any], pages: Iterable[str]) -> None:
    """Puts pages that the navigation does not name at the end of the section of their folder.

    Args:
        nav: that of mkdocs.yml, changed in place.
        pages: their places in `docs/`.
    """
    named = set(_pages_of(nav))
    sections = {
        name.lower(): entries
        for each in nav
        if isinstance(each, dict)
        for name, entries in each.items()
    }
    for page in sorted(set(pages) - named):
        section = sections.get(page.partition("/")[0])
        if section is not None:
            section.append(page)


def _pages_of(nav: Iterable[Any]) -> Iterator[str]:
    for each in nav:
        if isinstance(each, str):
            yield each
        else:
            for entries in each.values():
                yield from _pages_of([entries] if isinstance(entries, str) else entries)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = markdown.replace(_TREE, error_tree())
    return for_the_site(repository_path(page.file.src_uri), markdown, _root(config))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).resolve().parent
