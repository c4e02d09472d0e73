"""Patch after patch over one base: what each takes, and whether memory and lookups stay flat."""

from __future__ import annotations

import re
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.deltas import take_turns
from benchmarks.peers import Server, cube_server
from cube_core import _native
from cube_core.command_line import run
from cube_core.versions import Version
from cube_server.opening import TableOpener
from cube_server.store import DataDirectory

_VALUE_BYTES = 40
_BASE = 1
_REQUESTS_PER_SAMPLE = 300
_PATCHES_PER_SAMPLE = 10
_FILE_NAME = "bench_part0.table"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class PatchFigures:
    """Of some patches in a row.

    Attributes:
        apply_ms_*: from the command that lays a patch over its base to the answer of the one that
            switches to it.
        seek_ratio: time of seeks of the base's keys over that with the base alone, the two taking
            turns; median of the samples.
        rss_mb_*: memory of the server at the ends of samples. The most is while a whole table
            that patches were folded into is there beside the one before.
        disk_mb_max: most that its data directory took.
    """

    apply_ms_median: float
    apply_ms_max: float
    seek_ratio: float
    rss_mb_median: float
    rss_mb_max: float
    disk_mb_max: float


@dataclass(frozen=True)
class RowFigures:
    """Base alone, and the first and the last quarter of a row of patches."""

    base_keys: int
    patches: int
    rows_per_patch: int
    base_rss_mb: float
    first: PatchFigures
    last: PatchFigures
    folds: int


@dataclass(frozen=True)
class _Sample:
    apply_s: list[float]
    seek_ratio: float
    rss_mb: float
    disk_mb: float


def measure(run_dir: Path, *, patches: int, rows_per_patch: int, base_keys: int) -> RowFigures:
    """Nine tenths of a patch's keys are the base's, some of them deleted, one tenth are new."""
    directory = run_dir / f"patches_{rows_per_patch}"
    directory.mkdir()
    table = directory / _FILE_NAME
    keys = np.random.default_rng(3).integers(0, 2**64, base_keys, dtype=np.uint64)
    _write(table, keys, f"{_BASE}_{_BASE}")
    with cube_server(table, f"{_BASE}_{_BASE}", directory) as server:
        row = _Row(server, table, keys, rows_per_patch)
        base_rss_mb = row.sample(0).rss_mb
        samples = [row.sample(_PATCHES_PER_SAMPLE) for _ in range(patches // _PATCHES_PER_SAMPLE)]
        folds = row.folds()
    shown = max(1, len(samples) // 4)
    shutil.rmtree(directory)
    return RowFigures(
        base_keys=base_keys,
        patches=patches,
        rows_per_patch=rows_per_patch,
        base_rss_mb=base_rss_mb,
        first=_figures(samples[:shown]),
        last=_figures(samples[-shown:]),
        folds=folds,
    )


class _Row:
    """Makes patches, and measures what the server makes of them."""

    def __init__(self, server: Server, table: Path, keys: NDArray[np.uint64], rows: int) -> None:
        self._pid = server.pid
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{server.port}", timeout=60, trust_env=False
        )
        self._data_dir = table.parent / "data"
        self._base = _native.Table.open(str(table))
        self._keys = keys
        self._rows = rows
        self._patch = _BASE
        self._random = np.random.default_rng(11)

    def sample(self, patches: int) -> _Sample:
        apply_s = [self._apply() for _ in range(patches)]
        return _Sample(apply_s, self._seek_ratio(), self._rss_mb(), self._disk_mb())

    def folds(self) -> int:
        return int(self._http.get("/status").json()["patches"]["folds"])

    def _apply(self) -> float:
        self._patch += 1
        version = f"{_BASE}_{self._patch}"
        # A tenth of the base is what changes over and over, as in a model that is trained on.
        drawn = self._random.integers(0, len(self._keys) // 10, self._rows * 9 // 10)
        new = self._random.integers(0, 2**64, self._rows // 10, dtype=np.uint64)
        path = self._data_dir / version / _FILE_NAME
        path.parent.mkdir()
        deleted = self._keys[drawn[: self._rows // 100]]
        _write(path, np.concatenate([self._keys[drawn], new]), version, deleted)
        begin = time.perf_counter()
        for cmd in ("bg_load_patch", "bg_switch"):
            body = {"cmd": cmd, "version": version}
            self._http.post("/ControlService/cmd", json=body).raise_for_status()
        return time.perf_counter() - begin

    def _seek_ratio(self) -> float:
        """Of what the server has on disk and in memory, in this process."""
        opener = TableOpener(DataDirectory(self._data_dir), in_memory=True, shared=False)
        served = opener.open(Version.parse(f"{_BASE}_{self._patch}")).table
        figures = take_turns(
            "", self._base, served, self._keys, self._random, requests=_REQUESTS_PER_SAMPLE
        )
        return figures.ratio

    def _rss_mb(self) -> float:
        status = Path(f"/proc/{self._pid}/status").read_text()
        found = re.search(r"VmRSS:\s*(\d+) kB", status)
        return int(found[1]) / 1024 if found else 0.0

    def _disk_mb(self) -> float:
        files = (path for path in self._data_dir.rglob("*") if path.is_file())
        return sum(path.stat().st_size for path in files) / (1 << 20)


def _figures(samples: list[_Sample]) -> PatchFigures:
    apply_ms = [1000 * each for sample in samples for each in sample.apply_s]
    return PatchFigures(
        apply_ms_median=statistics.median(apply_ms),
        apply_ms_max=max(apply_ms),
        seek_ratio=statistics.median(each.seek_ratio for each in samples),
        rss_mb_median=statistics.median(each.rss_mb for each in samples),
        rss_mb_max=max(each.rss_mb for each in samples),
        disk_mb_max=max(each.disk_mb for each in samples),
    )


def _write(
    path: Path,
    keys: NDArray[np.uint64],
    version: str,
    deletions: NDArray[np.uint64] | None = None,
) -> None:
    values = np.zeros((len(keys), _VALUE_BYTES), dtype=np.uint8)
    _native.write_table(
        str(path),
        keys,
        values,
        dict_name="bench",
        version=version,
        shard=0,
        shard_num=1,
        base_version="" if deletions is None else f"{_BASE}_{_BASE}",
        deletions=deletions,
    )


@app.command()
def main(
    run_dir: Annotated[Path, typer.Argument(help="A directory for tables.")],
    patches: Annotated[int, typer.Option("--patches", help="How many, in a row.")] = 1000,
    rows: Annotated[int, typer.Option("--rows", help="Keys that a patch changes.")] = 1000,
    base_keys: Annotated[int, typer.Option("--base_keys", help="Keys of the base.")] = 1_000_000,
) -> None:
    """Prints the figures of one row of patches.

    Example: python -m benchmarks.patches /tmp --patches=200 --rows=10000
    """
    print(measure(run_dir, patches=patches, rows_per_patch=rows, base_keys=base_keys))


if __name__ == "__main__":
    run(app)
