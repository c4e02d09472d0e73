"""Patches for tests, and what a server must answer when they lie over a base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cube_core._native import TableReport, write_table
from cube_proto import dict_pb2
from tests.server.client import ServerClient
from tests.server.tables import DICT_NAME, DIM, KEY_COUNT, TABLE_NAME, place_table, rows_of

ALL_KEYS = np.arange(KEY_COUNT + 100, dtype=np.uint64)
MISSING = 2**32 - 1


def make_patch(
    path: Path, version: str, sets: Sequence[int], deletes: Sequence[int] = (), dim: int = DIM
) -> TableReport:
    """Writes the table of a patch: the values that it sets are those of the pass of its id."""
    base, _, patch = version.partition("_")
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = np.array(sets, np.uint64)
    return write_table(
        str(path),
        keys,
        np.ascontiguousarray(rows_of(keys, int(patch))[:, :dim]).view(np.uint8),
        dict_name=DICT_NAME,
        version=version,
        shard=0,
        shard_num=1,
        base_version=f"{base}_{base}",
        deletions=np.array(deletes, np.uint64),
    )


class PatchedDict:
    """A dict as it should be after each of its versions, and their files in a data directory.

    Attributes:
        passes: for each version, the pass that the value of each of ALL_KEYS is from; 0: missing.
    """

    def __init__(self, data_dir: Path, base: int = 10) -> None:
        self.data_dir = data_dir
        self.base = base
        self.passes: dict[str, np.ndarray] = {}
        place_table(data_dir, base)
        self.passes[f"{base}_{base}"] = np.where(ALL_KEYS < KEY_COUNT, base, 0)

    def place_patch(
        self, patch: int, sets: Sequence[int], deletes: Sequence[int] = (), over: int | None = None
    ) -> str:
        """Adds a patch, over another or over the newest one, and returns its version."""
        version = f"{self.base}_{patch}"
        make_patch(self.data_dir / version / TABLE_NAME, version, sets, deletes)
        before = list(self.passes)[-1] if over is None else f"{self.base}_{over}"
        passes = self.passes[before].copy()
        passes[list(sets)] = patch
        passes[list(deletes)] = 0
        self.passes[version] = passes
        return version

    def check(self, client: ServerClient, version: str, *, pinned: bool = True) -> None:
        """All of a version is served, and nothing else."""
        pin = {"version": version} if pinned else {}
        response = client.seek(ALL_KEYS.tolist(), version_required=True, **pin)
        assert response.version == version
        self.check_answer(response)

    def check_answer(self, response: dict_pb2.DictResponse) -> None:
        """It holds what the version that it names has for ALL_KEYS."""
        passes = self.passes[response.version]
        found = np.array([value.status != MISSING for value in response.values])
        np.testing.assert_array_equal(found, passes != 0)
        rows = np.frombuffer(b"".join(value.value for value in response.values), np.float32)
        expected = [rows_of(ALL_KEYS[at : at + 1], int(passes[at])) for at in np.flatnonzero(found)]
        np.testing.assert_array_equal(rows.reshape(-1, DIM), np.concatenate(expected))


def files_of(data_dir: Path) -> list[str]:
    return sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if path.is_file())
