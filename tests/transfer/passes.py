"""Passes as a trainer writes them, small and with values that name their pass."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_core._native import SequenceFileWriter, crc32c_file

DICT_NAME = "ctr_embedding"
DIM = 4
KEY_COUNT = 300


def rows_of(pass_id: str, keys: NDArray[np.uint64], dim: int = DIM) -> NDArray[np.float32]:
    """float32[n, dim]: what the pass holds for the keys."""
    rows = keys.astype(np.float32)[:, None] + np.arange(dim, dtype=np.float32) / 16
    return (rows + 1000 * int(pass_id)).astype(np.float32)


def write_embedding(
    directory: Path,
    pass_id: str,
    *,
    key_count: int = KEY_COUNT,
    dim: int = DIM,
    part_count: int = 2,
    manifest: bool = True,
) -> None:
    """Keys 0 to key_count - 1 over `part_count` SequenceFiles."""
    directory.mkdir(parents=True)
    for part in range(part_count):
        keys = np.arange(part, key_count, part_count, dtype=np.uint64)
        writer = SequenceFileWriter(str(directory / f"part-{part:05}"))
        writer.append(keys, rows_of(pass_id, keys, dim).view(np.uint8))
        writer.close()
    if manifest:
        write_manifest(directory)


def write_manifest(directory: Path) -> None:
    files = [
        _facts(path) | {"name": str(path.relative_to(directory))}
        for path in sorted(directory.rglob("part-*"))
    ]
    (directory / "_manifest.json").write_text(json.dumps({"files": files}))


def _facts(path: Path) -> dict[str, Any]:
    return {"name": path.name, "size": path.stat().st_size, "crc32c": crc32c_file(str(path))}


def write_dense(directory: Path, version: str, *, dim: int = DIM, list_files: bool = False) -> None:
    """The files of a dense model; what is in them is the predictor's business."""
    directory.mkdir(parents=True)
    manifest: dict[str, Any] = {
        "format": 1,
        "dict_name": DICT_NAME,
        "version": version,
        "embedding_dim": dim,
        "model": "model",
    }
    (directory / "model.json").write_text("{}")
    (directory / "model.pdiparams").write_bytes(version.encode() * 100)
    if list_files:
        manifest["files"] = [_facts(path) for path in directory.iterdir()]
    (directory / "manifest.json").write_text(json.dumps(manifest))


Content = dict[int, str]
"""What is served: the pass that each key has its row of; keys that are not in it are missing."""


def base_content(pass_id: str, key_count: int = KEY_COUNT) -> Content:
    return dict.fromkeys(range(key_count), pass_id)


def rows_in(content: Content, keys: Sequence[int]) -> list[bytes | None]:
    """The row of each key; None for those that are missing."""
    numbers = np.array([1000 * int(content.get(key, "0")) for key in keys], np.float32)
    rows = rows_of("0", np.array(keys, np.uint64)) + numbers[:, None]
    return [row.tobytes() if key in content else None for key, row in zip(keys, rows, strict=True)]


@dataclass(frozen=True)
class Patch:
    """Keys that have their rows of this pass from then on, and keys that go."""

    base_id: str
    id: str
    sets: Sequence[int]
    deletes: Sequence[int] = ()

    @property
    def version(self) -> str:
        return f"{self.base_id}_{self.id}"

    def over(self, content: Content) -> Content:
        kept = {key: pass_id for key, pass_id in content.items() if key not in self.deletes}
        return {**kept, **dict.fromkeys(self.sets, self.id)}

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        keys = np.array([*self.sets, *self.deletes], np.uint64)
        rows = rows_of(self.id, keys[: len(self.sets)])
        offsets = np.arange(len(keys) + 1, dtype=np.int64) * rows.itemsize * DIM
        offsets[len(self.sets) :] = rows.nbytes
        with SequenceFileWriter(str(directory / "part-00000")) as writer:
            writer.append_bytes(keys, offsets, rows.view(np.uint8).reshape(-1))
        write_manifest(directory)


class Trainer:
    """Writes passes under `output`, and the donefile that announces them."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.donefile = output / "donefile" / "base.txt"
        self.donefile.parent.mkdir(parents=True)

    def write(self, pass_id: str, **embedding: Any) -> dict[str, str]:
        """Writes a pass and returns its line."""
        directory = self.output / pass_id
        write_embedding(directory / "embedding", pass_id, **embedding)
        dim = embedding.get("dim", DIM)
        write_dense(directory / "dense", f"{pass_id}_{pass_id}", dim=dim)
        return self.line(pass_id)

    def write_patch(self, patch: Patch, *, dense: bool = False) -> dict[str, str]:
        """Writes a patch and returns its line."""
        directory = self.output / patch.version
        patch.write(directory / "embedding")
        line = {"id": patch.id, "key": patch.base_id, "input": f"../{patch.version}/embedding"}
        if dense:
            write_dense(directory / "dense", patch.version)
            line["dense"] = f"../{patch.version}/dense"
        return line

    def announce_patches(self, *lines: dict[str, str]) -> None:
        """Appends lines to patch.txt in one write."""
        with self.donefile.with_name("patch.txt").open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))

    def line(self, pass_id: str) -> dict[str, str]:
        directory = f"../{pass_id}"
        return {
            "id": pass_id,
            "key": pass_id,
            "input": f"{directory}/embedding",
            "dense": f"{directory}/dense",
        }

    def announce(self, *lines: dict[str, str] | str, end: str = "\n") -> None:
        """Appends lines in one write."""
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        with self.donefile.open("a", encoding="utf-8") as file:
            file.write("\n".join(texts) + end)
