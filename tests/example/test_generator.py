"""The generator's files are Criteo rows, and its click model can be learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.criteo_ctr.features import read_training_rows
from examples.criteo_ctr.generator import draw_rows, write_rows
from examples.criteo_ctr.quality import quality


def test_equal_seeds_write_equal_files(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_rows(tmp_path / name, draw_rows(300, seed))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def test_file_has_the_drawn_rows(tmp_path: Path) -> None:
    drawn = draw_rows(500, seed=1)
    write_rows(tmp_path / "rows.tsv", drawn)
    lines = (tmp_path / "rows.tsv").read_text().splitlines()
    assert [line.count("\t") for line in lines] == [39] * 500
    fields = np.array([line.split("\t") for line in lines])
    assert (fields[:, 0].astype(int) == drawn.labels).all()
    assert ((fields[:, 1:14] == "") == (drawn.counts < 0)).all()
    assert ((fields[:, 14:] == "") == (drawn.ranks < 0)).all()
    rows = read_training_rows(tmp_path / "rows.tsv")
    assert (rows.labels == drawn.labels).all()
    assert rows.dense[:, 0] == pytest.approx(np.maximum(drawn.counts[:, 0], 0) / 20)


def test_ids_follow_zipfs_law() -> None:
    ranks = draw_rows(20_000, seed=2).ranks
    widest = ranks[:, np.argmax(ranks.max(axis=0))]
    counts = np.bincount(widest[widest >= 0])
    # Exponent 1.1: the first id is drawn 2**1.1 times as often as the second.
    assert counts[0] / counts[1] == pytest.approx(2**1.1, rel=0.15)
    assert counts[0] / counts[9] == pytest.approx(10**1.1, rel=0.3)


def test_clicks_follow_the_planted_model() -> None:
    rows = draw_rows(40_000, seed=3)
    assert rows.labels.mean() == pytest.approx(0.25, abs=0.01)
    decile = np.digitize(
        rows.probabilities, np.quantile(rows.probabilities, np.arange(0.1, 1, 0.1))
    )
    for index in range(10):
        chosen = decile == index
        assert rows.labels[chosen].mean() == pytest.approx(
            rows.probabilities[chosen].mean(), abs=0.03
        )
    assert quality(rows.labels, rows.probabilities).auc > 0.78


def test_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 row"):
        draw_rows(0, seed=1)
