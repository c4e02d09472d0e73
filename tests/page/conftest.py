"""One browser for all tests here; sites of real processes, ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.page.browser import Browser, browsing
from tests.transfer.site import Site


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two shards of two servers each, whose addresses the daemon knows without a proxy between."""
    site = Site(tmp_path, 2, 2)
    site.behind_proxies = False
    try:
        site.start()
        yield site
    finally:
        site.close()
