from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_core._native import (
    STATUS_FOUND,
    STATUS_MISSING,
    STATUS_WRONG_WIDTH,
    Seeker,
    SeekPlan,
    encode_error_frame,
    encode_response_frame,
    parse_frames,
)
from cube_core.errors import WireError
from cube_proto import dict_pb2
from tests.native.fixtures import (
    FRAME_BYTES_MAX,
    REQUEST,
    REQUEST_WITH_VERSION,
    RESPONSE,
    original_rows,
    original_table,
)

MISSING_ON_WIRE = 0xFFFFFFFF
KEYS = st.lists(st.one_of(st.integers(0, 100), st.integers(0, 2**64 - 1)), max_size=100)


def plan_of(keys: list[int], shard_num: int) -> SeekPlan:
    return SeekPlan(np.array(keys, dtype=np.uint64), shard_num)


def response_of(*values: tuple[int, bytes], version: str | None = None) -> bytes:
    return dict_pb2.DictResponse(
        values=[dict_pb2.DictValue(status=status, value=value) for status, value in values],
        version=version,
    ).SerializeToString()


def test_bytes_of_the_original() -> None:
    plan = plan_of([1, 2, 999999999], 1)
    assert plan.frame(0, 6) == REQUEST
    assert plan.frame(0, 6, version_required=True) == REQUEST_WITH_VERSION
    rows = np.full((3, 10), 9, dtype=np.float32)
    status = np.full(3, 9, dtype=np.int32)
    body = parse_frames(RESPONSE, FRAME_BYTES_MAX)[0][0].payload
    assert plan.value_bytes(0, body) == 40
    assert plan.decode(0, body, rows, status) is None
    assert status.tolist() == [STATUS_FOUND, STATUS_FOUND, STATUS_MISSING] == [0, 0, -1]
    assert np.array_equal(rows[:2], original_rows(np.array([1, 2], dtype=np.uint64)))
    assert not rows[2].any()


@given(KEYS, st.integers(1, 9), st.booleans(), st.sampled_from([None, "1_1", "base.7_12"]))
def test_requests_agree_with_protobuf(
    keys: list[int], shard_num: int, version_required: bool, version: str | None
) -> None:
    plan = plan_of(keys, shard_num)
    assert plan.shards == sorted({key % shard_num for key in keys})
    for shard in range(shard_num):
        own = list(dict.fromkeys(key for key in keys if key % shard_num == shard))
        assert plan.key_count(shard) == len(own)
        payload = plan.payload(shard, version=version, version_required=version_required)
        request = dict_pb2.DictRequest.FromString(payload)
        assert list(request.keys) == own
        assert request.version_required == version_required
        assert request.version == (version or "")
        assert request.HasField("version") == (version is not None)
        frame = parse_frames(plan.frame(shard, -7, version=version, timeout_ms=30), 1 << 20)[0][0]
        assert (frame.service, frame.method) == ("rec.mcube.DictService", "seek")
        assert (frame.correlation_id, frame.timeout_ms) == (-7, 30)
        assert bytes(frame.payload) == plan.payload(shard, version=version)


@given(KEYS, st.integers(1, 4), st.integers(1, 17), st.data())
@settings(deadline=None)
def test_answers_find_their_places(
    keys: list[int], shard_num: int, dim: int, data: st.DataObject
) -> None:
    plan = plan_of(keys, shard_num)
    rows = np.full((len(keys), dim), 9, dtype=np.float32)
    status = np.full(len(keys), 9, dtype=np.int32)
    expected = {}
    for shard in plan.shards:
        values = []
        for key in dict.fromkeys(key for key in keys if key % shard_num == shard):
            positions = [i for i, other in enumerate(keys) if other == key]
            kind = data.draw(st.sampled_from([STATUS_FOUND, STATUS_MISSING, STATUS_WRONG_WIDTH]))
            row = np.full(dim, positions[0], dtype=np.float32)
            if kind == STATUS_FOUND:
                values.append((0, row.tobytes()))
            elif kind == STATUS_MISSING:
                values.append((MISSING_ON_WIRE, b""))
            else:
                values.append((0, row.tobytes()[:-1]))
            for position in positions:
                expected[position] = (kind, positions[0] if kind == STATUS_FOUND else 0)
        body = response_of(*values, version="3_3")
        if data.draw(st.booleans()):
            assert plan.decode(shard, body, rows, status) == "3_3"
        else:
            answer = parse_frames(encode_response_frame(7, body), FRAME_BYTES_MAX)[0][0]
            assert plan.take(shard, answer, "3_3", rows, status)
    for position, (kind, value) in expected.items():
        assert status[position] == kind
        assert (rows[position] == value).all()


def test_a_seek_there_and_back(tmp_path: Path) -> None:
    seeker = Seeker(1000, FRAME_BYTES_MAX)
    seeker.set_tables(original_table(tmp_path / "t", 500))
    keys = np.random.default_rng(0).integers(0, 600, 700, dtype=np.uint64)
    plan = SeekPlan(keys, 3)
    rows = np.empty((700, 10), dtype=np.float32)
    status = np.empty(700, dtype=np.int32)
    for shard in plan.shards:
        version = plan.decode(
            shard, seeker.seek(plan.payload(shard, version_required=True)), rows, status
        )
        assert version == "10_10"
    assert np.array_equal(status, np.where(keys < 500, STATUS_FOUND, STATUS_MISSING))
    assert np.array_equal(rows, original_rows(keys) * (keys < 500)[:, None])


@given(st.integers(1, 70_000), st.integers(0, 2**64 - 1))
def test_keys_beside_a_multiple_of_the_shards_have_the_right_owner(
    shard_num: int, key: int
) -> None:
    multiple = key - key % shard_num
    keys = {0, 2**64 - 1, max(multiple - 1, 0), multiple, min(multiple + shard_num, 2**64 - 1)}
    plan = plan_of(sorted(keys), shard_num)
    assert plan.shards == sorted({each % shard_num for each in keys})


@given(KEYS, st.integers(1, 9))
def test_frames_of_all_shards_are_those_of_each(keys: list[int], shard_num: int) -> None:
    options: dict[str, Any] = {"version": "1_1", "timeout_ms": 30, "dict_name": "d", "log_id": 7}
    array = np.array(keys, np.uint64)
    ids = []
    for given_keys in (array, array.view(np.int64)):
        plan, asks = SeekPlan.begin(given_keys, shard_num, **options)
        assert plan.shards == plan_of(keys, shard_num).shards
        assert asks == [
            (shard, number, plan.frame(shard, number, version_required=True, **options))
            for shard, (_, number, _) in zip(plan.shards, asks, strict=True)
        ]
        ids += [number for _, number, _ in asks]
    assert len(set(ids)) == len(ids)


def test_a_batch_is_begun_with_arrays_of_keys_only() -> None:
    options: dict[str, Any] = {"version": "1_1", "timeout_ms": 30, "dict_name": "d"}
    arrays: list[Any] = [np.zeros(4, np.int32), np.zeros(4, np.uint64)[::2], [1, 2]]
    for wrong in arrays:
        with pytest.raises(TypeError):
            SeekPlan.begin(wrong, 2, **options)
    with pytest.raises(ValueError, match="keys must have 1 dimension"):
        SeekPlan.begin(np.zeros((2, 2), np.uint64), 2, **options)


@pytest.mark.parametrize(
    "answer",
    [
        encode_response_frame(7, response_of((0, b"1234"), (0, b"1234"), version="2_2")),
        encode_response_frame(7, response_of((0, b"1234"), (0, b"1234"))),
        encode_response_frame(7, response_of((0, b"1234"), version="1_1")),
        encode_response_frame(7, b"\xff"),
        encode_error_frame(7, 2003, "is stopping"),
    ],
    ids=["another version", "no version", "too few values", "malformed", "an error"],
)
def test_what_is_no_good_answer_is_not_taken(answer: bytes) -> None:
    frame = parse_frames(answer, FRAME_BYTES_MAX)[0][0]
    arrays = np.zeros((2, 1), np.float32), np.zeros(2, np.int32)
    assert not plan_of([1, 2], 1).take(0, frame, "1_1", *arrays)


def test_width_of_the_first_found_value() -> None:
    plan = plan_of([1, 2, 3], 1)
    missing = (MISSING_ON_WIRE, b"")
    assert plan.value_bytes(0, response_of(missing, (0, b"x" * 12), (0, b"x" * 8))) == 12
    assert plan.value_bytes(0, response_of(missing, missing, missing)) == 0
    assert plan.value_bytes(0, b"") == 0


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "has 0 values for 2 keys"),
        (response_of((0, b"1234")), "has 1 values for 2 keys"),
        (response_of(*[(0, b"1234")] * 3), "more values than the 2 keys"),
        (response_of((0, b"1234"), (7, b"")), "unknown status 7"),
        (b"\x0a\x02\x08\x00", "lacks its status or value"),
        (b"\x0a\x02\x12\x00", "lacks its status or value"),
        (response_of((0, b"1234"), (0, b"1234"))[:-1], r"reaches over its end \(offset"),
        (b"\x0a", "varint"),
        (b"\xff\xff", "varint"),
    ],
)
def test_malformed_answers_are_refused(body: bytes, problem: str) -> None:
    rows = np.zeros((2, 1), dtype=np.float32)
    status = np.zeros(2, dtype=np.int32)
    with pytest.raises(WireError, match=problem):
        plan_of([1, 2], 1).decode(0, body, rows, status)


@given(st.binary(max_size=100))
def test_random_answers_are_decoded_or_refused(body: bytes) -> None:
    plan = plan_of([1, 2, 3], 1)
    rows = np.zeros((3, 2), dtype=np.float32)
    status = np.full(3, 9, dtype=np.int32)
    for prefix in (b"", response_of((0, b"12345678"), (MISSING_ON_WIRE, b""))):
        try:
            plan.decode(0, prefix + body, rows, status)
        except WireError:
            continue
        assert 9 not in status


def test_arguments_that_do_not_fit() -> None:
    plan = plan_of([1, 2], 2)
    rows = np.zeros((2, 3), dtype=np.float32)
    status = np.zeros(2, dtype=np.int32)
    body = response_of((0, b"x" * 12))
    with pytest.raises(ValueError, match="shard_num 0"):
        plan_of([1], 0)
    with pytest.raises(ValueError, match="keys must have 1 dimension"):
        SeekPlan(np.zeros((2, 2), dtype=np.uint64), 1)
    with pytest.raises(TypeError):
        SeekPlan(np.zeros(2, dtype=np.int64), 1)
    for shard in (2, 2**32 - 1):
        with pytest.raises(ValueError, match="is not below shard_num 2"):
            plan.payload(shard)
    with pytest.raises(ValueError, match="version must not be empty"):
        plan.payload(0, version="")
    with pytest.raises(ValueError, match="rows has 1 rows and status 2 items for 2 keys"):
        plan.decode(0, body, rows[:1], status)
    with pytest.raises(ValueError, match="rows must have 2 dimension"):
        plan.decode(0, body, rows.reshape(-1), status)
    with pytest.raises(ValueError, match="at least one column"):
        plan.decode(0, body, rows[:, :0].copy(), status)
    with pytest.raises(TypeError):
        plan.decode(0, body, rows.astype(np.float64), status)
    read_only = rows.copy()
    read_only.flags.writeable = False
    with pytest.raises(TypeError):
        plan.decode(0, body, read_only, status)
