from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_core._native import (
    Seeker,
    Table,
    encode_request_frame,
    parse_frames,
)
from cube_core.errors import LimitError, VersionNotLoadedError, WireError
from cube_proto import dict_pb2
from tests.native.fixtures import (
    FRAME_BYTES_MAX,
    HEAD_BYTES,
    META_BYTES,
    REQUEST,
    REQUEST_WITH_VERSION,
    RESPONSE,
    RESPONSE_WITH_VERSION,
    as_values,
    build_table,
    original_rows,
    original_table,
)

KEYS_MAX = 2000
PAYLOAD_MAX = 1 << 20
MISSING = 0xFFFFFFFF


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return original_table(tmp_path_factory.mktemp("seek") / "t", 1000)


@pytest.fixture
def seeker(table: Table) -> Seeker:
    seeker = Seeker(KEYS_MAX, FRAME_BYTES_MAX)
    seeker.set_tables(table)
    return seeker


def ask(seeker: Seeker, request: dict_pb2.DictRequest) -> dict_pb2.DictResponse:
    return dict_pb2.DictResponse.FromString(seeker.seek(request.SerializeToString()))


def seek_frame(payload: bytes, correlation_id: int = 1, service: str = "DictService") -> bytes:
    return encode_request_frame(service, "seek", correlation_id, payload)


def test_bytes_of_the_original(seeker: Seeker) -> None:
    assert seeker.serve(REQUEST, PAYLOAD_MAX) == (RESPONSE, [], len(REQUEST), HEAD_BYTES)
    assert seeker.serve(REQUEST_WITH_VERSION, PAYLOAD_MAX)[0] == RESPONSE_WITH_VERSION
    assert seeker.seek(REQUEST[HEAD_BYTES + META_BYTES :]) == RESPONSE[20:]
    assert (seeker.request_count, seeker.key_count, seeker.missing_count) == (3, 9, 3)


@given(
    st.lists(st.one_of(st.integers(0, 1100), st.integers(0, 2**64 - 1)), max_size=120),
    st.booleans(),
)
@settings(deadline=None)
def test_seeks_agree_with_a_dict(table: Table, keys: list[int], version_required: bool) -> None:
    seeker = Seeker(KEYS_MAX, FRAME_BYTES_MAX)
    seeker.set_tables(table)
    response = ask(seeker, dict_pb2.DictRequest(keys=keys, version_required=version_required))
    rows = original_rows(np.arange(1000, dtype=np.uint64))
    expected = [(0, rows[k].tobytes()) if k < 1000 else (MISSING, b"") for k in keys]
    assert [(value.status, value.value) for value in response.values] == expected
    assert response.HasField("version") == version_required


@pytest.mark.parametrize("width", [1, 3, 4, 32, 40, 64, 100, 120, 121, 128, 256, 5000, 65535])
def test_values_of_every_width(tmp_path: Path, width: int) -> None:
    values = np.random.default_rng(width).integers(0, 256, (50, width), dtype=np.uint8)
    seeker = Seeker(KEYS_MAX, FRAME_BYTES_MAX)
    seeker.set_tables(build_table(tmp_path / "t", np.arange(50, dtype=np.uint64), values))
    response = ask(seeker, dict_pb2.DictRequest(keys=[*range(45, 55), 3], version_required=True))
    found = [values[k].tobytes() for k in range(45, 50)] + [b""] * 5 + [values[3].tobytes()]
    assert [value.value for value in response.values] == found
    assert response.version == "10_10"


def test_packed_keys_unknown_fields_and_no_keys(seeker: Seeker) -> None:
    packed = b"\x08\x01\x0a\x02\x02\x03\x08\x04" + b"\x32\x02hi" + b"\x28\x07"
    values = dict_pb2.DictResponse.FromString(seeker.seek(packed)).values
    first = [np.frombuffer(value.value, np.float32)[0] for value in values]
    assert first == [1, 2, 3, 4]
    assert seeker.seek(b"") == b""


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"\x08", r"varint .* \(offset 1\)"),
        (b"\x08\x01\x08\xff", r"varint .* \(offset 3\)"),
        (b"\x08" + b"\xff" * 10, "over 64 bits"),
        (b"\x08" + b"\xff" * 9 + b"\x02", "over 64 bits"),
        (b"\x0a\x05\x01", r"reaches over its end \(offset 2\)"),
        (b"\x0a\x01\x80", "packed keys"),
        (b"\x0f\x01", "unknown wire type"),
        (b"\x1a\x7f1_1", "reaches over its end"),
    ],
)
def test_malformed_requests_are_refused(seeker: Seeker, payload: bytes, problem: str) -> None:
    with pytest.raises(WireError, match=problem):
        seeker.seek(payload)
    answer, others, taken, _ = seeker.serve(seek_frame(payload, 9) + REQUEST, PAYLOAD_MAX)
    frames, _, _ = parse_frames(answer, FRAME_BYTES_MAX)
    assert (frames[0].error_code, frames[0].correlation_id, others) == (1003, 9, [])
    start = (
        "Fail to parse request message, CompressType=none, "
        f"request_size={len(payload)}: DictRequest"
    )
    assert frames[0].error_text.startswith(start)
    assert answer.endswith(RESPONSE)
    assert taken == len(seek_frame(payload)) + len(REQUEST)
    assert (seeker.error_count, seeker.request_count) == (2, 3)


@given(st.binary(max_size=100))
@settings(max_examples=300, deadline=None)
def test_random_requests_are_answered_or_refused(table: Table, payload: bytes) -> None:
    seeker = Seeker(KEYS_MAX, FRAME_BYTES_MAX)
    seeker.set_tables(table)
    for prefix in (b"", b"\x08\x01", b"\x0a\x40"):
        try:
            ours: object = seeker.seek(prefix + payload)
        except (WireError, VersionNotLoadedError):
            ours = None
        if ours is not None:
            dict_pb2.DictResponse.FromString(seeker.seek(prefix + payload))


def test_limits_are_named(seeker: Seeker, table: Table) -> None:
    many = dict_pb2.DictRequest(keys=range(KEYS_MAX + 1)).SerializeToString()
    packed = b"\x0a\xd1\x0f" + b"\x01" * 2001
    for payload in (many, packed):
        with pytest.raises(LimitError, match="keys_per_request_max 2000"):
            seeker.seek(payload)
    frames, _, _ = parse_frames(seeker.serve(seek_frame(many), PAYLOAD_MAX)[0], FRAME_BYTES_MAX)
    assert frames[0].error_code == 2004
    assert ask(seeker, dict_pb2.DictRequest(keys=range(KEYS_MAX))).values[5].status == 0

    small = Seeker(KEYS_MAX, 1000)
    small.set_tables(table)
    with pytest.raises(LimitError, match="over frame_bytes_max 1000"):
        ask(small, dict_pb2.DictRequest(keys=range(30)))


def test_pinned_versions(tmp_path: Path) -> None:
    seeker = Seeker(KEYS_MAX, FRAME_BYTES_MAX)
    keys = np.arange(10, dtype=np.uint64)
    old, new = (
        build_table(
            tmp_path / v, keys, np.full((10, 4), ord(v), dtype=np.uint8), version=f"{v}_{v}"
        )
        for v in "12"
    )

    def value(version: str | None) -> bytes:
        request = dict_pb2.DictRequest(keys=[3], version=version)
        return ask(seeker, request).values[0].value

    with pytest.raises(VersionNotLoadedError, match="no version is loaded"):
        value(None)
    seeker.set_tables(old)
    assert value(None) == value("1_1") == b"1111"
    with pytest.raises(VersionNotLoadedError, match="'2_2' is not loaded; loaded: 1_1"):
        value("2_2")
    seeker.set_tables(new, [old])
    assert (value(None), value("2_2"), value("1_1")) == (b"2222", b"2222", b"1111")
    seeker.set_tables(None, [old])
    assert value("1_1") == b"1111"
    pin = dict_pb2.DictRequest(keys=[1], version="9_9").SerializeToString()
    frames, _, _ = parse_frames(seeker.serve(seek_frame(pin), PAYLOAD_MAX)[0], FRAME_BYTES_MAX)
    assert frames[0].error_code == 2001
    assert "'9_9' is not loaded; loaded: 1_1" in frames[0].error_text


def test_serve_answers_seeks_and_hands_on_the_rest(seeker: Seeker) -> None:
    payload = REQUEST[HEAD_BYTES + META_BYTES :]
    status = encode_request_frame("ControlService", "cmd", 3, b"", attachment=b'{"cmd":"status"}')
    with_attachment = encode_request_frame("DictService", "seek", 4, payload, attachment=b"x")
    other_method = encode_request_frame("DictService", "sync", 5, payload)
    stream = REQUEST + status + with_attachment + REQUEST + other_method
    answer, others, taken, needed = seeker.serve(stream + REQUEST[:20], PAYLOAD_MAX)
    assert answer == RESPONSE * 2
    assert [frame.correlation_id for frame in others] == [3, 4, 5]
    assert bytes(others[0].attachment) == b'{"cmd":"status"}'
    assert (taken, needed) == (len(stream), len(REQUEST))

    answer, others, _, _ = seeker.serve(REQUEST, payload_bytes_max=len(payload) - 1)
    assert (answer, [bytes(frame.payload) for frame in others]) == (b"", [payload])


def test_serve_takes_a_stream_in_any_pieces(seeker: Seeker) -> None:
    stream = b"".join(
        seek_frame(dict_pb2.DictRequest(keys=range(i)).SerializeToString(), i) for i in range(6)
    )
    whole = seeker.serve(stream, PAYLOAD_MAX)[0]
    for step in (1, 7, 12, 50):
        buffer, answers = b"", b""
        for begin in range(0, len(stream), step):
            buffer += stream[begin : begin + step]
            answer, others, taken, needed = seeker.serve(memoryview(buffer), PAYLOAD_MAX)
            assert others == []
            answers += answer
            buffer = buffer[taken:]
            assert needed > len(buffer)
        assert (answers, buffer) == (whole, b"")


def test_serve_ends_early_when_the_answers_grow_large(seeker: Seeker) -> None:
    frame = seek_frame(dict_pb2.DictRequest(keys=range(1000)).SerializeToString())
    rest = frame * 100  # some 4.6 MB of answers
    calls, answers = 0, 0
    while rest:
        answer, _, taken, needed = seeker.serve(rest, PAYLOAD_MAX)
        assert 0 < len(answer) < 2 << 20
        rest = rest[taken:]
        assert needed == HEAD_BYTES
        calls, answers = calls + 1, answers + answer.count(b"PRPC")
    assert (calls, answers) == (5, 100)


def test_serve_refuses_what_is_no_frame(seeker: Seeker) -> None:
    answer, _, taken, needed = seeker.serve(REQUEST + b"GET / HTTP/1.1", PAYLOAD_MAX)
    assert (answer, taken, needed) == (RESPONSE, len(REQUEST), HEAD_BYTES)
    with pytest.raises(WireError, match="PRPC"):
        seeker.serve(b"GET / HTTP/1.1", PAYLOAD_MAX)


def test_tables_are_replaced_under_load_without_mixing(tmp_path: Path) -> None:
    keys = np.arange(3000, dtype=np.uint64)
    tables = [
        build_table(
            tmp_path / str(v), keys, np.full((3000, 8), v, dtype=np.uint8), version=f"{v}_{v}"
        )
        for v in (1, 2)
    ]
    seeker = Seeker(3000, FRAME_BYTES_MAX)
    seeker.set_tables(tables[0])
    payload = dict_pb2.DictRequest(keys=range(3000), version_required=True).SerializeToString()
    mixed: list[object] = []
    done = threading.Event()

    def ask_on_and_on() -> None:
        while not done.is_set():
            response = dict_pb2.DictResponse.FromString(seeker.seek(payload))
            answered = {value.value for value in response.values}
            if answered != {bytes([int(response.version[0])]) * 8}:
                mixed.append(answered)

    askers = [threading.Thread(target=ask_on_and_on) for _ in range(2)]
    for asker in askers:
        asker.start()
    for turn in range(2000):
        seeker.set_tables(tables[turn % 2])
    done.set()
    for asker in askers:
        asker.join()
    assert mixed == []
    assert seeker.request_count > 0


def test_a_table_lives_as_long_as_it_serves(tmp_path: Path) -> None:
    seeker = Seeker(KEYS_MAX, FRAME_BYTES_MAX)
    keys = np.arange(100, dtype=np.uint64)
    seeker.set_tables(build_table(tmp_path / "t", keys, as_values(original_rows(keys))))
    (tmp_path / "t").unlink()
    assert ask(seeker, dict_pb2.DictRequest(keys=[99])).values[0].status == 0
