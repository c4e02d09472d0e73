"""Criteo fields become the features that Paddle's CTR example makes of them.

The expected ids were computed by CPython 2.7's own `hash(str(position) + field) % 1000001`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cube_core.errors import FormatError
from examples.criteo_ctr.features import Rows, read_training_rows

HEADER = ",".join(
    ["Id", "Label", *(f"I{i}" for i in range(1, 14)), *(f"C{i}" for i in range(1, 27))]
)
COUNTS = ["1", "", "44", "1", "102", "8", "", "2", "4", "1", "", "0", "4"]
IDS = ["05db9164", "", "fb936136", "zz", *(f"{i * 7919:08x}" for i in range(22))]
DENSE = [0.05, 0.0, 0.44, 0.02, 0.00159375, 0.016, 0.0, 0.04, 0.008, 0.1, 0.0, 0.0, 0.08]
# fmt: off
SPARSE_IDS = [
    963196, 25204, 74292, 411983, 316730, 583380, 857518, 962216, 123807, 412903, 901271, 749479,
    724359, 158624, 778876, 605976, 793223, 226249, 963695, 853365, 970711, 832778, 483907, 118559,
    465230, 111071,
]
# fmt: on


def test_csv_with_header_and_tsv_give_the_same_features(tmp_path: Path) -> None:
    fields = [*COUNTS, *IDS]
    (tmp_path / "rows.csv").write_text(f"{HEADER}\n{','.join(['10000000', '1', *fields])}\n")
    (tmp_path / "rows.tsv").write_text("\t".join(["1", *fields]) + "\n")
    for name in ("rows.csv", "rows.tsv"):
        rows = read_training_rows(tmp_path / name)
        assert rows.sparse_ids.dtype == np.int64
        assert rows.dense.dtype == np.float32
        assert rows.sparse_ids.tolist() == [SPARSE_IDS]
        assert rows.dense[0] == pytest.approx(DENSE, abs=1e-7)
        assert rows.labels.tolist() == [1]


def test_rows_without_labels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unlabelled.tsv"
    path.write_text("\t".join([*COUNTS, *IDS]) + "\n")
    with pytest.raises(FormatError, match=r"unlabelled\.tsv: has no column Label"):
        read_training_rows(path)


def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path) -> None:
    good = "\t".join(["0", *COUNTS, *IDS])
    path = tmp_path / "rows.tsv"
    path.write_text(f"{good}\n{good}\n{good.replace('102', 'many')}\n")
    with pytest.raises(FormatError, match=r"rows\.tsv:3: "):
        read_training_rows(path)


def test_every_tenth_row_is_held_out() -> None:
    count = 25
    ids = np.repeat(np.arange(count), 26).reshape(count, 26)
    rows = Rows(ids, np.zeros((count, 13), np.float32), np.arange(count) % 2)
    train, test = rows.held_out()
    assert test.sparse_ids[:, 0].tolist() == [9, 19]
    assert sorted([*train.sparse_ids[:, 0], 9, 19]) == list(range(count))
    assert (len(train), len(test)) == (23, 2)
