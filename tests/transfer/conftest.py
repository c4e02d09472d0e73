"""Sites of real processes, ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transfer.site import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Two shards, one server each."""
    yield from _running_site(tmp_path, 2, 1)


@pytest.fixture
def replicated_site(tmp_path: Path) -> Iterator[Site]:
    """Two shards, two servers each."""
    yield from _running_site(tmp_path, 2, 2)


def _running_site(root: Path, shard_num: int, copy_num: int) -> Iterator[Site]:
    site = Site(root, shard_num, copy_num)
    try:
        site.start()
        yield site
    finally:
        site.close()
