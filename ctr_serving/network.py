"""A model for general ops: any inputs, sequences among them, and any outputs."""

from __future__ import annotations

import time
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.check_rows import CHECK_ROWS_NAME
from ctr_serving.defaults import Defaults
from ctr_serving.engine import ROWS_PER_RUN_MAX
from ctr_serving.feeds import Feed, Ragged, rows_of
from ctr_serving.joined_sizes import JoinedSizes, padded
from ctr_serving.manifest import MANIFEST_NAME, check_files
from ctr_serving.network_manifest import NetworkManifest, read_network_manifest
from ctr_serving.predictor import (
    ONE_ROW_ONLY,
    check_names,
    create_native,
    first_line,
    program_file,
)
from ctr_serving.trial import OnednnSwitch, let_requests_pass
from cube_core.errors import ModelError, PredictionError

_TOLERANCE = 1e-4
_onednn_switch = OnednnSwitch(never=ROWS_PER_RUN_MAX)

Fetch = dict[str, NDArray[Any]]
"""Outputs [n, …] by name."""


class Network:
    """A loaded model: without oneDNN for few rows, with it for many, as `Engine` does.

    Attributes:
        directory: where it was loaded from, with no symbolic link in it.
        manifest: what it says of itself.
        default_rows: float32[dim] for each of the manifest's lookups; None when it is zeros.
        embedding: what keeps the embedding versions there; set before the model is served.
        load_seconds: time that loading and trying it out took.
        sizes: how often each number of rows was run.
    """

    def __init__(self, directory: Path, manifest: NetworkManifest) -> None:
        self.directory = directory
        self.manifest = manifest
        self.default_rows: Sequence[NDArray[np.float32] | None] = ()
        self.embedding: object = None
        self.load_seconds = 0.0
        self.sizes: Counter[int] = Counter()
        self._plain, self._onednn = (_Native(directory, manifest, onednn=use) for use in (0, 1))
        self._onednn_rows_min = ROWS_PER_RUN_MAX
        self._joined_sizes = JoinedSizes(ROWS_PER_RUN_MAX)

    @classmethod
    def load(cls, directory: Path, defaults: Defaults = Defaults()) -> Network:  # noqa: B008
        """Loads a model directory and tries it out: on rows of zeros, and on recorded rows where
        it has any.

        Raises:
            ModelError: a file is missing or corrupt, or the model does not fit its manifest; names
                the file and the field.
        """
        start_s = time.monotonic()
        directory = directory.resolve()
        manifest = read_network_manifest(directory)
        check_files(directory, manifest.files)
        default_rows = _default_rows(manifest, defaults, str(directory / MANIFEST_NAME))
        network = cls(directory, manifest)
        network.default_rows = default_rows
        network._try_out()
        network._check_recorded_rows()
        network._onednn_rows_min = _onednn_switch.rows_min(
            program_file(directory, manifest.model), network._run_zeros
        )
        network.load_seconds = time.monotonic() - start_s
        return network

    def run(self, feed: Feed) -> Fetch:
        """Runs the model; holds the GIL for most of it, as Paddle does. One run at a time.

        Raises:
            PredictionError: the inputs are not those of the model, or Paddle refused to run it.
        """
        rows = rows_of(feed)
        self.sizes[rows] += 1
        return self._run(self._onednn if rows >= self._onednn_rows_min else self._plain, feed, rows)

    def rows_to_run(self, rows_num: int) -> int:
        """The number of rows to run instead of so many that happen to be joined; see
        `JoinedSizes`."""
        return self._joined_sizes.rows_to_run(rows_num, self._onednn_rows_min)

    def warm_up(self, rows_num: int) -> None:
        """Runs zeros, on the thread that predicts."""
        self._run_zeros(rows_num >= self._onednn_rows_min, rows_num)

    def _run(self, native: _Native, feed: Feed, rows: int) -> Fetch:
        try:
            fetch = native.run(feed)
        except (RuntimeError, ValueError, TypeError) as error:
            raise PredictionError(f"{self.directory}: {first_line(error)}") from error
        for name, values in fetch.items():
            if values.shape[:1] != (rows,):
                raise PredictionError(
                    f"{self.directory}: output {name}: {rows} instances give {list(values.shape)}"
                )
        return fetch

    def _try_out(self) -> None:
        for native in (self._plain, self._onednn):
            fetch = self._try_zeros(native, 1, "run with zeros of manifest.json's shapes")
            self._try_zeros(native, 2, ONE_ROW_ONLY)
            for name, values in fetch.items():
                if values.dtype.kind == "f" and not np.isfinite(values).all():
                    raise ModelError(f"{self.directory}: output {name}: not finite for zeros")

    def _try_zeros(self, native: _Native, rows: int, hint: str) -> Fetch:
        try:
            return self._run(native, self._zeros(rows), rows)
        except PredictionError as error:
            raise ModelError(f"{error} ({hint})") from error
        finally:
            let_requests_pass()

    def _run_zeros(self, with_onednn: bool, rows: int) -> None:
        self._run(self._onednn if with_onednn else self._plain, self._zeros(rows), rows)

    def _zeros(self, rows: int) -> Feed:
        manifest = self.manifest
        one_each = np.arange(rows + 1)
        feed: dict[str, NDArray[Any] | Ragged] = {}
        widths: Counter[str] = Counter()
        for lookup in manifest.lookups:
            dim = manifest.dicts[lookup.dict_name].dim
            if lookup.pooling == "sequence":
                feed[lookup.input] = Ragged(np.zeros((rows, dim), np.float32), one_each)
            else:
                widths[lookup.input] += dim
        feed.update({name: np.zeros((rows, wide), np.float32) for name, wide in widths.items()})
        for each in manifest.ids:
            feed[each.input] = Ragged(np.zeros((rows, 1), np.int64), one_each)
        for other in manifest.inputs:
            feed[other.name] = np.zeros((rows, *other.shape), other.dtype)
        if manifest.dense_input:
            feed[manifest.dense_input] = np.zeros((rows, manifest.dense_dim), np.float32)
        return feed

    def _check_recorded_rows(self) -> None:
        """Compares what `check_rows.npz` holds, `input.<name>`, `input.<name>.offsets` and
        `output.<name>`, with what the model answers; see `check_recorded_rows` for the arrays of a
        manifest of format 1."""
        path = self.directory / CHECK_ROWS_NAME
        if not path.is_file():
            return
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
                recorded = _named_by_input(dict(content), self.manifest)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(f"{path}: is no file of recorded rows: {error}") from error
        outputs = [name for name in self.manifest.outputs if f"output.{name}" in recorded]
        if not outputs:
            raise ModelError(f"{path}: holds no output.<name> of {list(self.manifest.outputs)}")
        try:
            feed = _recorded_feed(recorded)
            fetches = []
            for native in (self._plain, self._onednn):
                fetches.append(self._run(native, feed, rows_of(feed)))
                let_requests_pass()
        except PredictionError as error:
            raise ModelError(f"{path}: cannot be run: {error}") from error
        for fetch in fetches:
            for name in outputs:
                wanted, found = recorded[f"output.{name}"], fetch[name]
                # Written so that NaN is wrong too.
                if wanted.shape != found.shape or not (np.abs(found - wanted) <= _TOLERANCE).all():
                    raise ModelError(f"{path}: the model answers another output.{name}")


class _Native:
    """One of Paddle's predictors with its handles, looked up once."""

    def __init__(self, directory: Path, manifest: NetworkManifest, *, onednn: int) -> None:
        self._native = native = create_native(directory, manifest.model, onednn=bool(onednn))
        names = {each.input for each in manifest.lookups} | {each.input for each in manifest.ids}
        names |= {each.name for each in manifest.inputs}
        names |= {manifest.dense_input} if manifest.dense_input else set()
        check_names(directory, native, names, set(manifest.outputs))
        self._inputs = {name: native.get_input_handle(name) for name in names}
        self._outputs = {name: native.get_output_handle(name) for name in manifest.outputs}

    def run(self, feed: Feed) -> Fetch:
        if feed.keys() != self._inputs.keys():
            raise ValueError(
                f"the inputs fed are {sorted(feed)}, those of the model {sorted(self._inputs)}"
            )
        for name, handle in self._inputs.items():
            value = feed[name]
            if isinstance(value, Ragged):
                # Paddle's sequence_pool refuses fewer values than instances, and passes over those
                # after the last offset.
                values = padded(value.values, len(value.offsets) - 1)
                handle.copy_from_cpu(np.ascontiguousarray(values))
                handle.set_lod([value.offsets.tolist()])
            else:
                handle.copy_from_cpu(np.ascontiguousarray(value))
        self._native.run()
        return {name: handle.copy_to_cpu() for name, handle in self._outputs.items()}


def _default_rows(
    manifest: NetworkManifest, defaults: Defaults, where: str
) -> list[NDArray[np.float32] | None]:
    rows = []
    defaults.check_places(manifest.slots, manifest.dicts, where)
    for lookup in manifest.lookups:
        use = manifest.dicts[lookup.dict_name]
        row = defaults.row(lookup.slot, lookup.dict_name, use.dim, use.mean_row, where)
        rows.append(row if row.any() else None)
    return rows


def _named_by_input(
    recorded: dict[str, NDArray[Any]], manifest: NetworkManifest
) -> dict[str, NDArray[Any]]:
    """Recorded rows as `input.<name>` and `output.<name>`, also those recorded for a manifest of
    format 1: the vectors of all lookups side by side."""
    if "embeddings" not in recorded:
        return recorded
    embeddings = recorded["embeddings"]
    named = {
        f"input.{manifest.dense_input}": recorded["dense"],
        f"output.{manifest.outputs[0]}": recorded["probabilities"],
    }
    begin = 0
    for lookup in manifest.lookups:
        end = begin + manifest.dicts[lookup.dict_name].dim
        key, vectors = f"input.{lookup.input}", embeddings[:, begin:end]
        if lookup.pooling == "sequence":
            named[f"{key}.offsets"] = np.arange(len(embeddings) + 1)
        named[key] = np.concatenate([named[key], vectors], axis=1) if key in named else vectors
        begin = end
    return named


def _recorded_feed(recorded: dict[str, NDArray[Any]]) -> Feed:
    feed: dict[str, NDArray[Any] | Ragged] = {}
    for key, values in recorded.items():
        if key.startswith("input.") and f"{key}.offsets" in recorded:
            feed[key.removeprefix("input.")] = Ragged(values, recorded[f"{key}.offsets"])
        elif key.startswith("input.") and not key.endswith(".offsets"):
            feed[key.removeprefix("input.")] = values
    return feed
