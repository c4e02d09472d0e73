"""What the demo needs to know of a model: how it is trained, exported and served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.criteo_ctr.export import ExportedPass, export_pass
from examples.criteo_ctr.network import CtrNetwork
from examples.criteo_ctr.run_directory import CONF_DIR


@dataclass(frozen=True)
class Example:
    """One model.

    Args:
        make_network: its layer takes ids int64[n, 26] and dense values float32[n, 13] and gives
            probabilities float32[n, 2].
        export: writes a pass of the trained network, under an id, into the trainer's output
            directory.
        conf_dir: cluster.yml of its service, and files that it names.
    """

    make_network: Callable[[], Any]
    export: Callable[[Any, Path, str], ExportedPass]
    conf_dir: Path = CONF_DIR


CRITEO = Example(CtrNetwork, export_pass)
