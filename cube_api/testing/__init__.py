"""A cluster of shard servers inside a test, with faults on demand: `FakeCluster`."""

from __future__ import annotations

from cube_api.testing._cluster import FakeCluster

__all__ = ["FakeCluster"]
