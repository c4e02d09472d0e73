"""Passes to shard tables, and Paddle embeddings to SequenceFile passes."""

from __future__ import annotations

from cube_builder.donefile import append_pass
from cube_builder.job import BuildJob, BuildReport, ShardReport
from cube_builder.local_engine import Progress, build
from cube_builder.paddle_export import export_rows, load_embedding

__all__ = [
    "BuildJob",
    "BuildReport",
    "Progress",
    "ShardReport",
    "append_pass",
    "build",
    "export_rows",
    "load_embedding",
]
