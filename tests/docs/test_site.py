"""The documentation is a site without dead links, dead anchors and resources from elsewhere."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from docs_site.hooks import add_to_nav
from docs_site.links import for_the_site, outside_files
from docs_site.slugs import slug

ROOT = Path(__file__).parents[2]


class Resources(HTMLParser):
    """Addresses that a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # What an `a` names is fetched only when somebody follows it.
        if tag != "a":
            self.found += [value or "" for name, value in attrs if name in ("href", "src")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does: any warning is an error."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(directory)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return directory


def test_every_page_is_built(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.found
        assert not [each for each in resources.found if "//" in each], page


def test_files_outside_of_docs_are_on_the_site(site: Path) -> None:
    assert (site / "repository/conf/cluster.yml").read_bytes() == (
        ROOT / "conf/cluster.yml"
    ).read_bytes()
    security = (site / "repository/SECURITY.html").read_text(encoding="utf-8")
    assert 'href="../reference/control.html#who-may-send-them"' in security


def test_a_dead_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Home\n\n[gone](gone.md), [none](#nowhere)\n")
    (tmp_path / "mkdocs.yml").write_text(
        "site_name: s\ntheme: {name: mkdocs}\n"
        "validation: {links: {not_found: warn, anchors: warn}}\n"
    )
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file"]
    done = subprocess.run(
        [*command, str(tmp_path / "mkdocs.yml")], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "gone.md" in done.stderr
    assert "#nowhere" in done.stderr


def test_links_of_the_repository_lead_to_the_same_files_on_the_site(tmp_path: Path) -> None:
    for path in ("docs/a/one.md", "docs/b/two.md", "conf/x.yml", "SECURITY.md"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")

    def moved(page: str, link: str) -> str:
        return for_the_site(page, link, tmp_path)

    assert moved("docs/a/one.md", "[t](../b/two.md#x)") == "[t](../b/two.md#x)"
    assert moved("docs/a/one.md", "[c](../../conf/x.yml)") == "[c](../repository/conf/x.yml)"
    assert moved("SECURITY.md", "[o](docs/a/one.md#y)") == "[o](../a/one.md#y)"
    assert moved("docs/a/one.md", "[s](https://h/x.md)") == "[s](https://h/x.md)"
    code = "```\n[c](../../conf/x.yml)\n```"
    assert moved("docs/a/one.md", code) == code


def test_a_link_to_nothing_is_left_for_the_build_to_name(tmp_path: Path) -> None:
    for link in ("[g](gone.md)", "[o](../../../../etc/passwd)"):
        assert for_the_site("docs/a.md", link, tmp_path) == link


def test_only_files_that_are_linked_leave_the_repository() -> None:
    found = outside_files(ROOT)
    assert "conf/cluster.yml" in found
    assert not [path for path in found if path.startswith((".", "/", "docs/"))]


def test_a_page_that_is_new_is_in_the_navigation() -> None:
    nav: list[Any] = ["index.md", {"Operating": ["operating/a.md", {"More": ["operating/b.md"]}]}]
    add_to_nav(nav, ["index.md", "operating/b.md", "operating/c.md", "table_format.md"])
    assert nav[1]["Operating"] == ["operating/a.md", {"More": ["operating/b.md"]}, "operating/c.md"]


def test_anchors_are_those_of_code_hosts() -> None:
    assert slug("Who may send them", "-") == "who-may-send-them"
    assert slug("`cube-cli bench`", "-") == "cube-cli-bench"
    assert slug("POST /v1/ctr/predict", "-") == "post-v1ctrpredict"
    assert slug("Bytes & peers", "-") == "bytes--peers"
