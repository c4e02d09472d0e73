"""Models for general ops fit their manifest and their recorded rows, or are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctr_serving.network import Network
from cube_core.errors import ModelError
from tests.ctr.networks import run_directly, write_network_manifest
from tests.ctr.op_bench import DEEP, LOOKUPS, WIDE, feed_of, manifest, request_of


def copied(two_dicts: Path, target: Path) -> Path:
    for path in two_dicts.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"output.fetch_name_0": np.full((4, 2), 0.3, np.float32)}, "answers another output.fetch"),
        ({"output.fetch_name_0": None}, "holds no output.<name> of ['fetch_name_0']"),
        ({"input.wide": None}, "check_rows.npz: cannot be run: "),
        ({"input.wide": np.zeros((3, 3), np.float32)}, "different numbers of instances"),
        ({"input.wide": np.zeros((4, 9), np.float32)}, "check_rows.npz: cannot be run: "),
    ],
)
def test_recorded_rows_refuse_another_model(
    two_dicts: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    _, by_slot, dense = request_of([[1, 1, 1]] * 4)
    feed = feed_of(by_slot, dense)
    recorded = {f"input.{name}": values for name, values in feed.items()}
    recorded |= {"output.fetch_name_0": run_directly(two_dicts, feed), **change}
    copy = copied(two_dicts, tmp_path)
    np.savez(
        copy / "check_rows.npz",
        **{name: values for name, values in recorded.items() if values is not None},
    )
    if not message:
        assert Network.load(copy).manifest.version == "7_7"
        return
    with pytest.raises(ModelError, match=re.escape(message)):
        Network.load(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lookups": [{"slot": 3, "dict": DEEP, "input": "x"}]}, "lookups.0.slot: is 3, slots=3"),
        ({"lookups": [{"slot": 0, "dict": "x", "input": "x"}]}, "lookups.0.dict: 'x' is not in"),
        ({"dense_input": ""}, "dense_input, dense_dim: one stands without the other"),
        ({"ids": [{"slot": 0, "input": "wide"}]}, "input 'wide': is filled twice"),
        ({"dicts": {DEEP: {"dim": 4, "mean_row": [1]}, WIDE: {"dim": 1}}}, "mean_row: is not 4"),
        ({"dicts": {DEEP: {"dim": 4, "version": "../x"}, WIDE: {"dim": 1}}}, "version '../x'"),
        ({"dicts": {DEEP: {"dim": 5}, WIDE: {"dim": 1}}}, "run with zeros of manifest.json"),
        ({"lookups": LOOKUPS[1:]}, "the manifest lacks deep_0"),
        ({"outputs": ["nosuch"]}, "'nosuch' is no output of the model"),
        ({"outputs": []}, "outputs: "),
        ({"format": 3}, "format: "),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    two_dicts: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    write_network_manifest(copied(two_dicts, tmp_path), "7_7", **{**manifest(), **change})
    with pytest.raises(ModelError, match=re.escape(message)):
        Network.load(tmp_path)
