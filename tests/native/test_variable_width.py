"""Tables whose values have a width each."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cube_core._native import (
    STATUS_FAILED,
    STATUS_FOUND,
    STATUS_MISSING,
    Seeker,
    SeekPlan,
    SequenceFileReader,
    SequenceFileWriter,
    Table,
    take_bytes,
    write_table,
)
from cube_core.errors import LimitError, SequenceFileError, WireError

BytesPairs = list[tuple[int, bytes]]

pairs_lists = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.binary(min_size=1, max_size=70)))


def joined(values: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    return offsets, np.frombuffer(b"".join(values), np.uint8)


def cut(offsets: NDArray[np.int64], values: NDArray[np.uint8]) -> list[bytes]:
    return [values[begin:end].tobytes() for begin, end in pairwise(offsets)]


def write(path: Path, pairs: BytesPairs, *, shard: int = 0, shard_num: int = 1) -> Table:
    offsets, values = joined([value for _, value in pairs])
    write_table(
        str(path),
        np.array([key for key, _ in pairs], np.uint64),
        values,
        dict_name="test_dict",
        version="1_1",
        shard=shard,
        shard_num=shard_num,
        value_kind="variable",
        offsets=offsets,
    )
    return Table.open(str(path))


@given(pairs_lists, st.randoms())
@settings(max_examples=100, deadline=None)
def test_pairs_come_back(pairs: BytesPairs, random: object) -> None:
    expected = dict(pairs)
    with TemporaryDirectory() as directory:
        path = Path(directory) / "t"
        table = write(path, pairs)
        asked = np.array([*expected, 3, 3, 2**63], np.uint64)
        offsets, values, status = table.get_bytes(asked)
        assert cut(offsets, values) == [expected.get(key, b"") for key in asked.tolist()]
        assert [s == STATUS_FOUND for s in status] == [key in expected for key in asked.tolist()]
        listed: BytesPairs = []
        slot = 0
        while slot < table.slot_count:
            keys, offsets, values, slot = table.pairs_bytes(slot, 7, 100)
            listed += zip(keys.tolist(), cut(offsets, values), strict=True)
        assert dict(listed) == expected
        assert len(listed) == table.key_count
        # The same set of pairs in another order is the same file.
        write(Path(directory) / "again", sorted(expected.items()))
        assert (Path(directory) / "again").read_bytes() == path.read_bytes()


def test_what_a_table_says_of_its_values(tmp_path: Path) -> None:
    table = write(tmp_path / "t", [(1, b"abc"), (2, b"a" * 65_535)])
    assert (table.value_kind, table.value_bytes, table.value_bytes_max) == ("variable", 0, 65_535)
    with pytest.raises(ValueError, match=r"no rows: call get_bytes"):
        table.get(np.array([1], np.uint64))
    with pytest.raises(ValueError, match=r"no rows: call get_bytes"):
        table.pairs(0, 1)


def test_bytes_of_a_table_of_one_width(tmp_path: Path) -> None:
    rows = np.arange(8, dtype=np.uint8).reshape(2, 4)
    keys = np.array([5, 6], np.uint64)
    write_table(str(tmp_path / "t"), keys, rows, dict_name="d", version="1_1", shard=0, shard_num=1)
    offsets, values, status = Table.open(str(tmp_path / "t")).get_bytes(
        np.array([6, 7, 5], np.uint64)
    )
    assert cut(offsets, values) == [bytes([4, 5, 6, 7]), b"", bytes([0, 1, 2, 3])]
    assert status.tolist() == [STATUS_FOUND, STATUS_MISSING, STATUS_FOUND]


@pytest.mark.parametrize(
    ("offsets", "kind", "problem"),
    [
        ([0, 2, 2], "variable", r"keys\[1\] = 9: a value of 0 bytes; supported are 1 to 65535"),
        ([0, 2, 66_000], "variable", r"keys\[1\] = 9: a value of 65998 bytes"),
        ([0, 2], "variable", "offsets has 2 items for 2 values"),
        ([0, 3, 2], "variable", r"offsets\[2\] is below"),
        ([0, 3, 70_001], "variable", "reach out of values"),
        (None, "variable", "which needs them"),
        ([0, 1, 2], "bytes", "offsets are for value_kind variable"),
    ],
)
def test_values_that_do_not_fit(
    tmp_path: Path, offsets: list[int] | None, kind: str, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        write_table(
            str(tmp_path / "t"),
            np.array([8, 9], np.uint64),
            np.zeros(70_000, np.uint8),
            dict_name="d",
            version="1_1",
            shard=0,
            shard_num=1,
            value_kind=kind,
            offsets=None if offsets is None else np.array(offsets, np.int64),
        )
    assert not list(tmp_path.iterdir())


@given(pairs_lists, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_a_seek_over_shards_gathers_what_the_tables_hold(pairs: BytesPairs, shard_num: int) -> None:
    expected = dict(pairs)
    asked = np.array([*expected, *list(expected)[:3], 77], np.uint64)
    plan = SeekPlan(asked, shard_num)
    bodies = []
    with TemporaryDirectory() as directory:
        for shard in plan.shards:
            own = [(key, value) for key, value in pairs if key % shard_num == shard]
            seeker = Seeker(keys_per_request_max=1000, frame_bytes_max=1 << 20)
            seeker.set_tables(
                write(Path(directory) / str(shard), own, shard=shard, shard_num=shard_num)
            )
            body = seeker.seek(plan.payload(shard, version_required=True))
            assert plan.check_bytes(shard, body) == "1_1"
            bodies.append((shard, body))
    offsets, values, status = plan.gather_bytes(bodies)
    assert cut(offsets, values) == [expected.get(key, b"") for key in asked.tolist()]
    wanted = [STATUS_FOUND if key in expected else STATUS_MISSING for key in asked.tolist()]
    assert status.tolist() == wanted
    _, _, status = plan.gather_bytes(bodies[1:])
    failed = [int(key) % shard_num == plan.shards[0] for key in asked]
    assert [each == STATUS_FAILED for each in status.tolist()] == failed


def test_an_answer_over_the_frame_limit_is_refused_by_its_exact_size(tmp_path: Path) -> None:
    table = write(tmp_path / "t", [(1, b"a" * 3000), (2, b"b"), (3, b"c" * 40)])
    seeker = Seeker(keys_per_request_max=1000, frame_bytes_max=2048)
    seeker.set_tables(table)
    plan = SeekPlan(np.array([2, 3], np.uint64), 1)
    offsets, values, _ = plan.gather_bytes([(0, seeker.seek(plan.payload(0)))])
    assert cut(offsets, values) == [b"b", b"c" * 40]
    with pytest.raises(LimitError, match=r"of 1 keys take 3008 bytes, over frame_bytes_max 2048"):
        seeker.seek(SeekPlan(np.array([1], np.uint64), 1).payload(0))


def test_an_answer_of_another_number_of_values_is_refused() -> None:
    plan = SeekPlan(np.array([1, 2], np.uint64), 1)
    one = bytes.fromhex("0a05 0800 1201 61")
    with pytest.raises(WireError, match="has 1 values for 2 keys"):
        plan.check_bytes(0, one)
    with pytest.raises(WireError, match="more values than the 2 keys"):
        plan.gather_bytes([(0, 3 * one)])


@pytest.mark.parametrize(
    "first",
    [
        "0a05 0800 1201 61",
        "0a05 1201 61 0800",  # the fields in another order
        "0a06 088000 1201 61",  # a status of two bytes
        "0a07 0800 1201 61 1801",  # a field that is not known
        "0a09 0800 1202 6262 1201 61",  # the last of a field counts
        "1a01 00 0a05 0800 1201 61",
    ],
)
def test_values_in_any_form_that_protobuf_allows(first: str) -> None:
    plan = SeekPlan(np.array([1, 2], np.uint64), 1)
    for rest, second in (("0a08 08ffffffff0f 1200", b""), ("0a06 0800 1202 6263", b"bc")):
        body = bytes.fromhex(first + rest + "1203 315f31")
        assert plan.check_bytes(0, body) == "1_1"
        offsets, values, status = plan.gather_bytes([(0, body)])
        assert cut(offsets, values) == [b"a", second]
        assert status.tolist() == [STATUS_FOUND, STATUS_FOUND if second else STATUS_MISSING]
        for size in range(len(body) - 5):
            with pytest.raises(WireError):
                plan.check_bytes(0, body[:size])


def test_values_are_taken_by_index() -> None:
    offsets, values = joined([b"a", b"bcd", b"", b"ef"])
    assert cut(*take_bytes(offsets, values, np.array([3, 0, 1, 3, 2], np.int64))) == [
        b"ef",
        b"a",
        b"bcd",
        b"ef",
        b"",
    ]
    with pytest.raises(ValueError, match=r"indexes\[1\] = 4 is none of 4 values"):
        take_bytes(offsets, values, np.array([0, 4], np.int64))


@pytest.mark.parametrize("dialect", ["hadoop", "paddle"])
def test_sequence_files_of_variable_width(tmp_path: Path, dialect: str) -> None:
    path = str(tmp_path / "part-00000")
    sizes = [1, 65_535, 7, 4, 300] * 40
    expected = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
    keys = np.arange(len(sizes), dtype=np.uint64)
    with SequenceFileWriter(path, dialect=dialect) as writer:
        writer.append_bytes(keys, *joined(expected))
    reader = SequenceFileReader(path)
    assert reader.dialect == dialect
    found: list[bytes] = []
    while True:
        some, offsets, values = reader.read_bytes(9, 100_000)
        if not len(some):
            break
        assert len(some) <= 9
        assert some[0] == len(found)
        found += cut(offsets, values)
    assert found == expected
    with pytest.raises(SequenceFileError, match="key 1: a value of 65535 bytes; the file's first"):
        SequenceFileReader(path).read(10)
