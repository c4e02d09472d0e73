"""Exporting a trained pass: embedding and dense network apart, announced when both are there."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paddle

from ctr_serving.criteo import DENSE_DIM, SLOTS
from cube_builder import append_pass, export_rows, load_embedding
from cube_core._native import crc32c_file
from cube_core.errors import BuildError
from cube_core.replace_file import sync_directory
from cube_core.versions import Version
from examples.criteo_ctr.models import (
    DENSE_INPUT,
    FUSED_INPUT,
    FUSED_STEM,
    MODEL_STEM,
    SPARSE_INPUTS,
    save_check_rows,
    save_dense_network,
    save_fused_network,
    save_unsplit_network,
)
from examples.criteo_ctr.network import EMBEDDING_DIM, CtrNetwork

TABLE_NAME = "SparseFeatFactors"


@dataclass(frozen=True)
class ExportedPass:
    """A pass that is complete and stands in the donefile.

    Args:
        version: "<base>_<version>" of its embedding.
        embedding_dir: SequenceFiles and their `_manifest.json`.
        dense_dir: the dense network and its `manifest.json`.
        unsplit_dir: the whole network with the table inside, to check answers by; not deployed.
        announced_at_s: time.monotonic() when its line was in the donefile.
    """

    version: Version
    embedding_dir: Path
    dense_dir: Path
    unsplit_dir: Path
    announced_at_s: float


def export_pass(
    network: CtrNetwork, output_dir: Path, pass_id: str, *, dict_name: str = "ctr_embedding"
) -> ExportedPass:
    """Writes `<output_dir>/<pass_id>/` under a temporary name, renames it, and only then appends
    the pass to `<output_dir>/donefile/base.txt`.

    Raises:
        BuildError: the pass is there already.
        ModelError: the saved dense network has other inputs than it was given.
    """
    target = output_dir / pass_id
    version = Version(pass_id, pass_id)
    with written_whole(target) as staging:
        write_table(network.embedding.weight, TABLE_NAME, staging / "embedding")
        write_dense(network, staging / "dense", dict_name, version)
        save_unsplit_network(network, staging / "unsplit")
    append_pass(
        output_dir / "donefile" / "base.txt", pass_id, target / "embedding", target / "dense"
    )
    return ExportedPass(
        version, target / "embedding", target / "dense", target / "unsplit", time.monotonic()
    )


@contextlib.contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """A directory to write into, which becomes `target` at the end, on disk, or is gone.

    Raises:
        BuildError: `target` is there already.
    """
    if target.exists():
        raise BuildError(f"{target}: exists; a new pass needs a new id")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        staging = Path(temporary) / target.name
        staging.mkdir()
        yield staging
        _sync(staging)
        staging.rename(target)
    sync_directory(target.parent)


def write_table(weight: paddle.Tensor, name: str, directory: Path) -> None:
    """Writes the rows of an embedding as SequenceFiles, by way of a .pdparams file, which is how a
    training job hands its parameters on."""
    with tempfile.TemporaryDirectory(dir=directory.parent) as temporary:
        parameters = Path(temporary) / "table.pdparams"
        paddle.save({name: weight}, str(parameters))
        export_rows(load_embedding(parameters, name), directory)


def write_dense(network: CtrNetwork, dense_dir: Path, dict_name: str, version: Version) -> None:
    """Writes the dense network in both forms, recorded rows and the manifest.

    Raises:
        ModelError: a saved network has other inputs than it was given.
    """
    output = save_dense_network(network, dense_dir)
    fused_output = save_fused_network(network, dense_dir)
    save_check_rows(dense_dir)
    manifest = {
        "format": 1,
        "dict_name": dict_name,
        "version": str(version),
        "slots": SLOTS,
        "embedding_dim": EMBEDDING_DIM,
        "dense_dim": DENSE_DIM,
        "sparse_inputs": SPARSE_INPUTS,
        "dense_input": DENSE_INPUT,
        "output": output,
        "model": MODEL_STEM,
        "mean_row": network.embedding.weight.numpy().mean(axis=0).tolist(),
        "fused": {"model": FUSED_STEM, "input": FUSED_INPUT, "output": fused_output},
    }
    write_manifest(dense_dir, manifest)


def write_manifest(dense_dir: Path, manifest: dict[str, Any]) -> None:
    """Writes manifest.json, with the list of the files that are there."""
    files = [_listed(path) for path in sorted(dense_dir.iterdir())]
    (dense_dir / "manifest.json").write_text(
        json.dumps({**manifest, "files": files}, indent=1) + "\n", encoding="utf-8"
    )


def _listed(path: Path) -> dict[str, str | int]:
    """A file's entry in the manifest, by which flipped bits are found before Paddle reads them."""
    return {"name": path.name, "size": path.stat().st_size, "crc32c": crc32c_file(str(path))}


def _sync(directory: Path) -> None:
    """To the disk with all files below: the donefile must never outlive what it announces."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_directory(path)
    sync_directory(directory)
