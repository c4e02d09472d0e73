"""Deltas over a base: what they hold, laid over it, merged with it and with each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cube_core._native import STATUS_DELETED, Seeker, SeekPlan, Table, merge_tables, write_table
from tests.native.deltas import WIDTH, Rows, content, delta, keys_of, laid, sought, write

numbers = st.integers(0, 255)
keys = st.one_of(st.integers(0, 80), st.sampled_from([2**64 - 1, 2**63]))
whole_rows = st.dictionaries(keys, numbers, max_size=120)
delta_rows = st.dictionaries(keys, st.one_of(st.none(), numbers), max_size=60)


@given(whole_rows, delta_rows)
@settings(max_examples=60, deadline=None)
def test_a_delta_over_its_base_answers_as_one_table(base_rows: Rows, changes: Rows) -> None:
    with TemporaryDirectory() as directory:
        base = write(Path(directory) / "base", base_rows)
        change = delta(Path(directory) / "delta", changes)
        table = base.with_delta(change)
        expected = laid(base_rows, changes)
        assert table.key_count == len(expected)
        assert (table.kind, table.version, table.base_version) == ("whole", "10_11", "")
        assert table.slot_count == base.key_count + change.key_count
        assert content(table) == expected
        asked = keys_of([*range(90), 2**64 - 1, 2**63])
        values, status = table.get(asked)
        answers = sought(table, asked)
        for key, value, ok, answer in zip(asked.tolist(), values, status, answers, strict=True):
            assert answer == expected.get(key)
            assert ok == (0 if key in expected else -1)
            assert value.tolist() == [expected.get(key, 0)] * WIDTH


@given(delta_rows)
@settings(max_examples=20, deadline=None)
def test_a_delta_by_itself_gives_back_what_it_changes(changes: Rows) -> None:
    with TemporaryDirectory() as directory:
        change = delta(Path(directory) / "delta", changes)
        assert (change.kind, change.version, change.base_version) == ("delta", "10_11", "10_10")
        assert change.key_count == change.slot_count == len(changes)
        assert change.deletion_count == list(changes.values()).count(None)
        assert content(change) == changes
        _, status = change.get(keys_of([*changes, 81]))
        expected = [STATUS_DELETED if value is None else 0 for value in changes.values()]
        assert status.tolist() == [*expected, -1]


@given(st.one_of(st.none(), whole_rows), st.lists(delta_rows, min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_merging_gives_the_file_of_the_same_rows(
    base_rows: Rows | None, layers: list[Rows]
) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        tables = [
            delta(directory / f"delta{i}", rows, version=f"10_{11 + i}")
            for i, rows in enumerate(layers)
        ]
        everything: Rows = dict[int, int | None]()
        if base_rows is None:
            for layer in layers:
                everything = {**everything, **layer}
            delta(directory / "direct", everything, version="10_99")
        else:
            tables.insert(0, write(directory / "base", base_rows))
            everything = laid(base_rows, *layers)
            write(directory / "direct", everything, version="10_99")
        report = merge_tables(str(directory / "merged"), tables, version="10_99")
        assert (directory / "merged").read_bytes() == (directory / "direct").read_bytes()
        assert report.key_count == len(everything)
        assert report.deletion_count == list(everything.values()).count(None)
        assert report.key_count + report.duplicate_count <= sum(t.key_count for t in tables)
        assert content(Table.open(str(directory / "merged"))) == everything


def test_deltas_go_on_over_what_they_were_folded_into(tmp_path: Path) -> None:
    """A delta names the base of its pass; a table that older deltas were folded into is of it."""
    base = write(tmp_path / "base", {1: 1, 2: 2})
    first = delta(tmp_path / "first", {1: None, 3: 3})
    merge_tables(str(tmp_path / "folded"), [base, first], version="10_11")
    folded = Table.open(str(tmp_path / "folded"))
    assert (folded.kind, folded.version, folded.base_version) == ("whole", "10_11", "")
    second = delta(tmp_path / "second", {2: 20}, version="10_12")
    table = folded.with_delta(second)
    assert (table.version, content(table)) == ("10_12", {2: 20, 3: 3})
    merge_tables(str(tmp_path / "again"), [folded, second], version="10_12")
    merge_tables(str(tmp_path / "at_once"), [base, first, second], version="10_12")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "at_once").read_bytes()


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_values_in_fewer_bytes_are_served_from_both(tmp_path: Path, kind: str) -> None:
    def rows(first: int, count: int) -> NDArray[np.uint8]:
        values = np.arange(first, first + count, dtype=np.float32)[:, None].repeat(4, axis=1)
        if kind == "fp16":
            return values.astype(np.float16).view(np.uint8)
        ends = np.stack([values[:, 0], values[:, 0] + 255], axis=1).astype(np.float32)
        return np.hstack([ends.view(np.uint8), np.zeros((count, 4), np.uint8)])

    names = {"dict_name": "d", "shard": 0, "shard_num": 1, "value_kind": kind}
    base_path, delta_path = str(tmp_path / "base"), str(tmp_path / "delta")
    write_table(base_path, keys_of(range(100)), rows(0, 100), version="1_1", **names)  # type: ignore[arg-type]
    write_table(
        delta_path,
        keys_of(range(50, 150)),
        rows(1000, 100),
        version="1_2",
        base_version="1_1",
        **names,  # type: ignore[arg-type]
    )
    table = Table.open(base_path).with_delta(Table.open(delta_path))
    values, status = table.get(keys_of(range(150)))
    assert not status.any()
    expected = np.concatenate([np.arange(50), np.arange(1000, 1100)]).astype(np.float32)
    assert np.array_equal(values.view(np.float32), expected[:, None].repeat(4, axis=1))


def write_bytes(path: Path, rows: Mapping[int, bytes | None], **options: object) -> Table:
    """`write` for values of a width each."""
    kept = {key: value for key, value in rows.items() if value is not None}
    if "base_version" in options:
        options["deletions"] = keys_of(key for key in rows if rows[key] is None)
    names = {"dict_name": "d", "shard": 0, "shard_num": 1, "value_kind": "variable", **options}
    write_table(
        str(path),
        keys_of(kept),
        np.frombuffer(b"".join(kept.values()), dtype=np.uint8),
        offsets=np.cumsum([0, *map(len, kept.values())], dtype=np.int64),
        **names,  # type: ignore[arg-type]
    )
    return Table.open(str(path))


def bytes_content(table: Table, bytes_max: int = 9) -> dict[int, bytes]:
    rows: dict[int, bytes] = {}
    slot = 0
    while slot < table.slot_count:
        keys, offsets, values, slot = table.pairs_bytes(slot, 5, bytes_max)
        cuts = zip(keys.tolist(), offsets[:-1], offsets[1:], strict=True)
        rows.update({key: values[begin:end].tobytes() for key, begin, end in cuts})
    return rows


byte_rows = st.dictionaries(keys, st.binary(min_size=1, max_size=6), max_size=40)
byte_changes = st.dictionaries(
    keys, st.one_of(st.none(), st.binary(min_size=1, max_size=9)), max_size=40
)


@given(byte_rows, byte_changes, byte_changes)
@settings(max_examples=30, deadline=None)
def test_values_of_variable_width_come_from_both(
    base_rows: Mapping[int, bytes],
    first: Mapping[int, bytes | None],
    second: Mapping[int, bytes | None],
) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        over: dict[str, object] = {"base_version": "10_10"}
        base = write_bytes(directory / "base", base_rows, version="10_10")
        older = write_bytes(directory / "older", first, version="10_11", **over)
        newer = write_bytes(directory / "newer", second, version="10_12", **over)
        merge_tables(str(directory / "both"), [older, newer], version="10_12")
        both = write_bytes(directory / "direct", {**first, **second}, version="10_12", **over)
        assert (directory / "both").read_bytes() == (directory / "direct").read_bytes()

        merged = {**base_rows, **first, **second}
        expected = {key: value for key, value in merged.items() if value is not None}
        table = base.with_delta(both)
        assert (table.key_count, bytes_content(table)) == (len(expected), expected)
        asked = keys_of([*range(90), 2**64 - 1])
        offsets, values, status = table.get_bytes(asked)
        for i, key in enumerate(asked.tolist()):
            value = values[offsets[i] : offsets[i + 1]].tobytes()
            assert (value, status[i]) == (expected.get(key, b""), 0 if key in expected else -1)
        seeker = Seeker(keys_per_request_max=1 << 16, frame_bytes_max=1 << 22)
        seeker.set_tables(table)
        plan = SeekPlan(asked, 1)
        body = seeker.seek(plan.payload(0))
        sought_offsets, sought_values, sought_status = plan.gather_bytes([(0, body)])
        assert np.array_equal(sought_offsets, offsets)
        assert np.array_equal(sought_values, values)
        assert np.array_equal(sought_status, status)
        merge_tables(str(directory / "folded"), [base, older, newer], version="10_12")
        write_bytes(directory / "whole", expected, version="10_12")
        assert (directory / "folded").read_bytes() == (directory / "whole").read_bytes()


def test_a_large_delta_over_a_large_base(tmp_path: Path) -> None:
    """Several parts, batches that mix both, and most keys outside of the delta."""
    random = np.random.default_rng(3)
    all_keys = np.unique(random.integers(0, 2**64, 450_000, dtype=np.uint64))
    random.shuffle(all_keys)
    old, replaced, deleted, added = np.split(all_keys, [300_000, 350_000, 380_000])

    def values(keys: NDArray[np.uint64], salt: int) -> NDArray[np.uint8]:
        salted: NDArray[np.uint64] = keys ^ np.uint64(salt)
        return salted[:, None].view(np.uint8)

    names = {"dict_name": "d", "shard": 0, "shard_num": 1}
    in_base = np.concatenate([old, replaced, deleted])
    in_delta = np.concatenate([replaced, added])
    write_table(str(tmp_path / "base"), in_base, values(in_base, 1), version="1_1", **names)  # type: ignore[arg-type]
    write_table(
        str(tmp_path / "delta"),
        in_delta,
        values(in_delta, 2),
        version="1_2",
        base_version="1_1",
        deletions=np.concatenate([deleted, keys_of([7])]),
        **names,  # type: ignore[arg-type]
    )
    base, change = Table.open(str(tmp_path / "base")), Table.open(str(tmp_path / "delta"))
    table = base.with_delta(change)
    assert table.key_count == len(old) + len(in_delta)
    assert 0 < table.memory_bytes - base.memory_bytes - change.memory_bytes < 4 * change.key_count
    found, status = table.get(all_keys)
    gone = np.isin(all_keys, deleted)
    assert np.array_equal(status == -1, gone)
    salts = np.where(np.isin(all_keys, old), 1, 2).astype(np.uint64)
    assert np.array_equal(found.view(np.uint64)[~gone, 0], (all_keys ^ salts)[~gone])
    assert merge_tables(str(tmp_path / "whole"), table.parts, version="1_2").key_count == len(
        all_keys
    ) - len(deleted)


def test_parts_attach_in_another_place(tmp_path: Path) -> None:
    """What a worker does with the descriptors that it was sent."""
    write(tmp_path / "base", {1: 1, 2: 2})
    delta(tmp_path / "delta", {2: None, 3: 3})
    base = Table.open(str(tmp_path / "base"), shared=True)
    change = Table.open(str(tmp_path / "delta"), shared=True)
    table = base.with_delta(change)
    assert (table.descriptor, table.path) == (-1, str(tmp_path / "delta"))
    assert table.memory_bytes >= base.memory_bytes + change.memory_bytes
    attached = [Table.attach(part.path, part.descriptor) for part in table.parts]
    assert [part.version for part in table.parts] == ["10_10", "10_11"]
    del base, change
    assert content(attached[0].with_delta(attached[1])) == content(table) == {1: 1, 3: 3}
    assert attached[0].parts[0].path == str(tmp_path / "base")


def test_a_delta_of_deletions_fits_any_width(tmp_path: Path) -> None:
    base = write(tmp_path / "base", {1: 1, 2: 2})
    for width in (1, 40):
        write_table(
            str(tmp_path / "delta"),
            keys_of([]),
            np.empty((0, width), dtype=np.uint8),
            dict_name="d",
            version="10_11",
            shard=0,
            shard_num=1,
            base_version="10_10",
            deletions=keys_of([2, 2, 5]),
        )
        gone = Table.open(str(tmp_path / "delta"))
        assert content(base.with_delta(gone)) == {1: 1}
        later = delta(tmp_path / "later", {5: 5}, version="10_12")
        merge_tables(str(tmp_path / "both"), [gone, later], version="10_12")
        delta(tmp_path / "direct", {2: None, 5: 5}, version="10_12")
        assert (tmp_path / "both").read_bytes() == (tmp_path / "direct").read_bytes()
        merge_tables(str(tmp_path / "whole"), [base, gone], version="10_11")
        assert content(Table.open(str(tmp_path / "whole"))) == {1: 1}


def test_a_deletion_comes_after_every_pair(tmp_path: Path) -> None:
    report = write_table(
        str(tmp_path / "delta"),
        keys_of([4, 5, 5]),
        np.ones((3, WIDTH), dtype=np.uint8),
        dict_name="d",
        version="10_11",
        shard=0,
        shard_num=1,
        base_version="10_10",
        deletions=keys_of([4, 6]),
    )
    assert (report.key_count, report.deletion_count, report.duplicate_count) == (3, 2, 2)
    assert content(Table.open(str(tmp_path / "delta"))) == {4: None, 5: 1, 6: None}
