"""Passes to shard tables, and Paddle embeddings to SequenceFile passes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "BuildJob": "job",
    "BuildReport": "job",
    "Progress": "local_engine",
    "ShardReport": "job",
    "append_pass": "donefile",
    "build": "local_engine",
    "export_rows": "paddle_export",
    "load_embedding": "paddle_export",
}


def __getattr__(name: str) -> Any:
    # Imported when asked for: `cube-builder` starts anew for every pass, and needs few of them.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
