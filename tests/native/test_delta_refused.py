"""Deltas that do not fit, are damaged, or are asked for what they do not give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cube_core._native import Seeker, Table, merge_tables, write_table
from cube_core.errors import TableError
from tests.native.deltas import delta, keys_of, write


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {1: 1})
    good = delta(tmp_path / "good", {1: 2})
    others = {
        "base_version is '9_9', that of .*base '10_10'": delta(
            tmp_path / "a", {1: 1}, base_version="9_9", version="9_10"
        ),
        "dict_name is 'e'": delta(tmp_path / "b", {1: 1}, dict_name="e"),
        "shard_num is 2, that of .*base 1": delta(tmp_path / "c", {2: 1}, shard_num=2),
        "is a whole table": write(tmp_path / "d", {1: 1}, version="10_11"),
        "value_kind is 1": delta(tmp_path / "e", {1: 1}, value_kind="fp16"),
    }
    for problem, other in others.items():
        with pytest.raises(TableError, match=problem) as caught:
            base.with_delta(other)
        assert str(caught.value).startswith(other.path)
        with pytest.raises(TableError, match=problem):
            merge_tables(str(tmp_path / "merged"), [base, other], version="10_11")
    with pytest.raises(TableError, match="no whole table"):
        good.with_delta(good)
    with pytest.raises(TableError, match="no whole table"):
        base.with_delta(good).with_delta(good)
    with pytest.raises(TableError, match="laid over its base"):
        merge_tables(str(tmp_path / "merged"), [base.with_delta(good)], version="10_11")
    with pytest.raises(ValueError, match="tables must not be empty"):
        merge_tables(str(tmp_path / "merged"), [], version="10_11")
    with pytest.raises(ValueError, match="160 bytes together"):
        merge_tables(str(tmp_path / "merged"), [good], version="1" * 158)
    with pytest.raises(ValueError, match="deletions are for a delta"):
        write_table(
            str(tmp_path / "merged"),
            keys_of([1]),
            np.ones((1, 1), dtype=np.uint8),
            dict_name="d",
            version="1_1",
            shard=0,
            shard_num=1,
            deletions=keys_of([1]),
        )
    with pytest.raises(ValueError, match=r"deletions\[1\] = 3 is of shard 1"):
        delta(tmp_path / "merged", {2: None, 3: None}, shard_num=2)
    assert not (tmp_path / "merged").exists()


def test_a_delta_is_not_served_by_itself(tmp_path: Path) -> None:
    change = delta(tmp_path / "delta", {1: None})
    seeker = Seeker(10, 1000)
    with pytest.raises(ValueError, match="is a delta, which answers together with its base"):
        seeker.set_tables(change)
    with pytest.raises(ValueError, match="is a delta"):
        seeker.set_tables(None, [change])


def test_damage_to_a_delta_is_refused(tmp_path: Path) -> None:
    delta(tmp_path / "intact", {key: None if key % 3 else key for key in range(20)})
    intact = (tmp_path / "intact").read_bytes()
    for offset in range(len(intact)):
        damaged = bytearray(intact)
        damaged[offset] ^= 0x10
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(TableError, match="damaged"):
            Table.open(str(tmp_path / "damaged"))
