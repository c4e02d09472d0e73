"""The hooks of mkdocs.yml."""

from __future__ import annotations

from pathlib import Path

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
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    markdown = markdown.replace(_TREE, error_tree())
    return for_the_site(repository_path(page.file.src_uri), markdown, _root(config))


def _root(config: MkDocsConfig) -> Path:
    return Path(config.config_file_path).resolve().parent
