"""The CTR request and response codec against protobuf's own."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cube_core._native import (
    encode_ctr_request,
    encode_ctr_response,
    parse_ctr_request,
    parse_ctr_response,
)
from cube_core.errors import LimitError, WireError
from cube_proto.ctr_prediction_pb2 import CTRReqInstance, CTRResInstance, Request, Response

no_deadline = settings(deadline=None)


def rows(count: int, slots: int, dense: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    draw = np.random.default_rng(count + slots + dense)
    ids = draw.integers(-(2**63), 2**63 - 1, (count, slots), dtype=np.int64)
    ids >>= draw.integers(0, 64, (count, slots))
    return ids, draw.standard_normal((count, dense), dtype=np.float32)


def request_of(ids: NDArray[np.int64], floats: NDArray[np.float32]) -> Request:
    return Request(
        instances=[
            CTRReqInstance(sparse_ids=row.tolist(), dense_ids=values.tolist())
            for row, values in zip(ids, floats, strict=True)
        ]
    )


def length_delimited(tag: int, content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([tag, len(content)]) + content


@no_deadline
@given(count=st.integers(0, 20), slots=st.integers(0, 30), dense=st.integers(0, 15))
def test_requests_are_protobufs_bytes(count: int, slots: int, dense: int) -> None:
    ids, floats = rows(count, slots, dense)
    encoded = encode_ctr_request(ids, floats)
    assert encoded == request_of(ids, floats).SerializeToString()
    for buffer in (encoded, bytearray(encoded), memoryview(encoded)):
        parsed_ids, parsed_floats = parse_ctr_request(buffer, slots=slots, dense=dense)
        assert parsed_ids.dtype == np.int64
        assert parsed_floats.dtype == np.float32
        np.testing.assert_array_equal(parsed_ids, ids)
        np.testing.assert_array_equal(parsed_floats, floats)


def test_a_large_request_comes_back() -> None:
    ids, floats = rows(5000, 26, 13)
    parsed_ids, parsed_floats = parse_ctr_request(encode_ctr_request(ids, floats))
    np.testing.assert_array_equal(parsed_ids, ids)
    np.testing.assert_array_equal(parsed_floats, floats)


def test_packed_mixed_and_unknown_fields_are_read() -> None:
    instance = b"".join(
        (
            length_delimited(0x0A, b"\x01\x80\x01"),  # packed ids 1, 128
            b"\x22\x03abc",  # field 4, unknown
            b"\x08\x05",  # unpacked id 5
            length_delimited(0x12, struct.pack("<ff", 0.5, 1.5)),  # packed floats
            b"\x15" + struct.pack("<f", -2.0),
        )
    )
    payload = b"\x10\x07" + length_delimited(0x0A, instance) + b"\x1d\x00\x00\x00\x00"
    ids, floats = parse_ctr_request(payload, slots=3, dense=3)
    assert ids.tolist() == [[1, 128, 5]]
    assert floats.tolist() == [[0.5, 1.5, -2.0]]


@pytest.mark.parametrize(
    ("field", "found"),
    [("sparse_ids", 25), ("sparse_ids", 27), ("dense_ids", 0), ("dense_ids", 14)],
)
def test_a_wrong_number_of_values_names_the_instance(field: str, found: int) -> None:
    request = request_of(*rows(5, 26, 13))
    values = getattr(request.instances[3], field)
    expected = len(values)
    values[:] = [1] * found
    with pytest.raises(WireError, match=f"^instance 3: {found} {field}, expected {expected}$"):
        parse_ctr_request(request.SerializeToString())


def test_limits_are_named() -> None:
    payload = encode_ctr_request(*rows(11, 2, 1))
    with pytest.raises(LimitError, match="11 instances, over rows_max 10"):
        parse_ctr_request(payload, slots=2, dense=1, rows_max=10)
    with pytest.raises(ValueError, match="slots"):
        parse_ctr_request(payload, slots=-1)


def test_a_request_cut_off_is_refused_or_shorter() -> None:
    all_ids, all_floats = rows(3, 4, 2)
    payload = encode_ctr_request(all_ids, all_floats)
    row_ends = [len(encode_ctr_request(all_ids[:n], all_floats[:n])) for n in range(4)]
    for size in range(len(payload)):
        if size in row_ends:
            ids, _ = parse_ctr_request(payload[:size], slots=4, dense=2)
            assert len(ids) == row_ends.index(size)
        else:
            with pytest.raises(WireError, match="offset"):
                parse_ctr_request(payload[:size], slots=4, dense=2)


@no_deadline
@given(payload=st.binary(max_size=200))
def test_random_bytes_never_crash(payload: bytes) -> None:
    with contextlib.suppress(WireError):
        ids, floats = parse_ctr_request(payload)
        assert len(ids) == len(floats) <= len(payload)
    with contextlib.suppress(WireError):
        probabilities, _, _ = parse_ctr_response(payload)
        assert probabilities.shape == (len(probabilities), 2)


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 3), (1, 3))])
def test_matrices_that_do_not_fit_are_refused(
    shapes: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    with pytest.raises(ValueError, match="sparse_ids has 2 rows, dense_ids has"):
        encode_ctr_request(np.zeros(shapes[0], np.int64), np.zeros(shapes[1], np.float32))
    with pytest.raises(ValueError, match="float32"):
        encode_ctr_response(np.zeros((1, 3), np.float32))


@no_deadline
@given(
    probabilities=st.lists(st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32))),
    err_code=st.integers(-(2**63), 2**63 - 1),
    err_msg=st.text(max_size=200),
)
def test_responses_are_protobufs_bytes(
    probabilities: list[tuple[float, float]], err_code: int, err_msg: str
) -> None:
    matrix = np.array(probabilities, np.float32).reshape(-1, 2)
    response = Response(
        predictions=[CTRResInstance(prob0=a, prob1=b) for a, b in probabilities],
        err_code=err_code,
        err_msg=err_msg or None,
    )
    encoded = encode_ctr_response(matrix, err_code=err_code, err_msg=err_msg)
    assert encoded == response.SerializeToString()
    parsed, parsed_code, parsed_msg = parse_ctr_response(encoded)
    np.testing.assert_array_equal(parsed, matrix)
    assert (parsed_code, parsed_msg) == (err_code, err_msg)


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"", "Response lacks err_code"),
        (b"\x10\x00\x0a\x05\x0d\x00\x00\x00\x00", "CTRResInstance lacks prob0 or prob1"),
        (b"\x10\x00\x0a\x05\x0d\x00\x00\x00", "offset"),
    ],
)
def test_incomplete_responses_are_refused(payload: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        parse_ctr_response(payload)


def test_a_message_that_is_no_utf8_is_shown_all_the_same() -> None:
    assert parse_ctr_response(b"\x10\x01\x1a\x02a\xff")[2] == "a�"
