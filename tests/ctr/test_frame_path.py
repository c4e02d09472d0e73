"""Requests that come together over baidu_std: taken in one call, each answered by itself."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ctr_serving import batches
from ctr_serving.client._transports import SERVICE
from ctr_serving.frame_path import FramePath
from ctr_serving.predictor import Predictor
from ctr_serving.service import PredictionService
from cube_core._native import (
    Frame,
    encode_ctr_request,
    encode_request_frame,
    parse_ctr_request,
    parse_ctr_response,
    parse_frames,
    take_ctr_frames,
)
from cube_core.errors import WireError
from cube_core.request_log import RequestLog
from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.prpc_protocol import PrpcProtocol
from cube_core.wire.service import ServiceTable
from tests.ctr.models import direct_probabilities, embedding, requests_of
from tests.ctr.service import Ctr
from tests.ctr.test_batches import SPOILT_KEY, WRONG_KEY, Bench
from tests.server.mock_connection import MockTransport, until

Request = tuple[NDArray[np.int64], NDArray[np.float32]]
FRAME_BYTES_MAX = 64 << 20
TIMEOUT_S = 10.0


def frame_of(number: int, request: Request, **options: Any) -> bytes:
    return encode_request_frame(
        SERVICE, "inference", number, encode_ctr_request(*request), **options
    )


def taken(data: bytes, **limits: int) -> Any:
    options = {
        "slots": 26,
        "dense": 13,
        "requests_max": 100,
        "rows_max": 256,
        "payload_bytes_max": 64 << 10,
        "frame_bytes_max": FRAME_BYTES_MAX,
    }
    return take_ctr_frames(data, **(options | limits))


# ------------------------------------------------------------------------------ the kernel


def test_rows_of_all_requests_lie_one_after_the_other() -> None:
    requests = [requests_of(count, seed=count, missing=True) for count in (1, 40, 3)]
    data = b"".join(
        frame_of(number, each, timeout_ms=900 - number) for number, each in enumerate(requests)
    )
    frames, others, taken_bytes, needed_bytes = taken(data)
    assert (len(frames), frames.rows, frames.timeout_ms_min) == (3, 44, 898)
    assert (others, taken_bytes, needed_bytes) == ([], len(data), 12)
    assert frames.correlation_ids == [0, 1, 2]
    np.testing.assert_array_equal(frames.keys, np.concatenate([ids.ravel() for ids, _ in requests]))
    np.testing.assert_array_equal(frames.dense, np.concatenate([dense for _, dense in requests]))
    middle = frames.part(1, 1)
    np.testing.assert_array_equal(middle.keys, requests[1][0].ravel())
    probabilities = np.random.default_rng(0).random((44, 2), np.float32)
    answers, _, _ = parse_frames(frames.responses(probabilities), FRAME_BYTES_MAX)
    assert [answer.correlation_id for answer in answers] == [0, 1, 2]
    parsed = [parse_ctr_response(answer.payload)[0] for answer in answers]
    np.testing.assert_array_equal(np.concatenate(parsed), probabilities)
    with pytest.raises(ValueError, match="float32\\[44, 2\\]"):
        frames.responses(probabilities[:43])
    with pytest.raises(ValueError, match="3 requests"):
        frames.part(2, 2)


@pytest.mark.parametrize(
    ("limits", "requests"),
    [({"requests_max": 2}, 2), ({"rows_max": 9}, 2), ({"rows_max": 8}, 1), ({"rows_max": 10}, 3)],
)
def test_what_is_too_much_stays_for_the_next_call(limits: dict[str, int], requests: int) -> None:
    parts = [frame_of(number, requests_of(rows)) for number, rows in enumerate((4, 5, 1))]
    frames, others, taken_bytes, needed_bytes = taken(b"".join(parts), **limits)
    assert (len(frames), others, needed_bytes) == (requests, [], 12)
    assert taken_bytes == sum(map(len, parts[:requests]))


def test_others_are_left_to_who_tells_what_is_wrong_with_them() -> None:
    ids, dense = requests_of(2)
    good = encode_ctr_request(ids, dense)
    odd = [
        frame_of(1, (np.ascontiguousarray(ids[:, :25]), dense)),
        frame_of(2, (ids, np.ascontiguousarray(dense[:, :12]))),
        frame_of(3, (ids[:0], dense[:0])),
        frame_of(4, requests_of(300)),
        encode_request_frame(SERVICE, "inference", 5, good[:-1]),
        encode_request_frame(SERVICE, "debug", 6, good),
        encode_request_frame("DictService", "inference", 7, good),
        encode_request_frame(SERVICE, "inference", 8, good, attachment=b"x"),
    ]
    data = b"".join([frame_of(100, (ids, dense)), *odd, frame_of(101, (ids, dense))])
    frames, others, taken_bytes, _ = taken(data)
    assert frames.correlation_ids == [100, 101]
    assert [other.correlation_id for other in others] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert taken_bytes == len(data)
    np.testing.assert_array_equal(frames.keys, np.concatenate([ids.ravel(), ids.ravel()]))
    none, others, _, _ = taken(frame_of(1, (ids, dense)), payload_bytes_max=10)
    assert none is None
    assert len(others) == 1
    with pytest.raises(WireError):
        taken(b"GET / HTTP/1.1\r\n")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_it_takes_what_the_codec_takes(noise: bytes, at: int, value: int) -> None:
    """A request with a byte changed or noise behind it: taken exactly when the codec takes it."""
    payload = bytearray(encode_ctr_request(*requests_of(2)))
    payload[at % len(payload)] = value
    payload += noise
    try:
        ids, dense = parse_ctr_request(payload, rows_max=256)
        is_good = len(ids) > 0
    except WireError:
        is_good = False
    data = encode_request_frame(SERVICE, "inference", 1, bytes(payload))
    frames, others, taken_bytes, _ = taken(data)
    assert (frames is not None, len(others), taken_bytes) == (is_good, not is_good, len(data))
    if frames is not None:
        np.testing.assert_array_equal(frames.keys, ids.ravel())
        np.testing.assert_array_equal(frames.dense.view(np.int32), dense.view(np.int32))


# ------------------------------------------------------------------------------ a connection


class Connection:
    """A connection to a predictor without a socket, over the table of `Bench`."""

    def __init__(self, bench: Bench, *, limits: WireLimits, pending_max: int = 1024) -> None:
        slot = bench.slot
        slot.switch(bench.engine)
        path = FramePath(
            slot,
            bench.batches,
            bench.counters,
            limits,
            batch_rows_max=256,
            rows_per_request_max=1000,
            requests_pending_max=pending_max,
        )
        service = PredictionService(
            bench.op,
            bench.counters,
            requests_pending_max=pending_max,
            request_bytes_pending_max=1 << 20,
        ).as_service()
        self.transport = MockTransport()
        self.protocol = PrpcProtocol(
            ServiceTable([service]), limits, Connections(10), batch_path=path
        )
        self.protocol.connection_made(self.transport)

    def frames(self) -> list[Frame]:
        return parse_frames(self.transport.written, FRAME_BYTES_MAX)[0]

    async def answers(self, count: int) -> dict[int, Frame]:
        await until(self.transport, lambda: len(self.frames()) >= count)
        return {frame.correlation_id: frame for frame in self.frames()}


@pytest.fixture
def bench(models: dict[int, Path], tmp_path: Path) -> Bench:
    return Bench(tmp_path, models[1], extra="enable_batch_align: 1", queue_timeout_s=10)


@pytest.mark.parametrize(
    ("key", "message"), [(SPOILT_KEY, "shard 1 is down"), (WRONG_KEY, "value of key 888888")]
)
async def test_one_bad_request_spoils_none_of_its_read(
    bench: Bench, key: int, message: str
) -> None:
    connection = Connection(bench, limits=WireLimits())
    requests = [requests_of(rows, seed=rows) for rows in (1, 2, 3)]
    requests[1][0][1, 3] = key
    connection.protocol.data_received(
        b"".join(frame_of(number, each) for number, each in enumerate(requests))
    )
    answers = await connection.answers(3)
    for number in (0, 2):
        bench.check(bytes(answers[number].payload), *requests[number])
    probabilities, err_code, err_msg = parse_ctr_response(answers[1].payload)
    assert (len(probabilities), err_code) == (0, -1)
    assert message in err_msg
    assert bench.counters.requests == {"ok": 2, "failed": 1}
    assert (bench.counters.rows, bench.counters.pending) == (4, 0)


@pytest.mark.parametrize("faults", [1, 2, 9])
async def test_what_is_answered_is_not_answered_again_when_the_run_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, faults: int
) -> None:
    """One has a value of another width, one is late, and Paddle fails for the rest."""
    real_run = Predictor.run
    failures = iter(["Paddle is out of memory"] * faults)

    def run(predictor: Predictor, *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        if problem := next(failures, None):
            raise RuntimeError(problem)
        return real_run(predictor, *inputs)

    monkeypatch.setattr(Predictor, "run", run)
    bench.table.gate.clear()
    connection = Connection(bench, limits=WireLimits())
    requests = [requests_of(rows, seed=rows) for rows in (1, 2, 3, 4)]
    requests[1][0][1, 3] = WRONG_KEY
    connection.protocol.data_received(
        b"".join(
            frame_of(number, each, timeout_ms=20 if number == 2 else 0)
            for number, each in enumerate(requests)
        )
    )
    await bench.table.asked.wait()
    await asyncio.wait([asyncio.ensure_future(bench.table.gate.wait())], timeout=0.05)
    bench.table.gate.set()
    answers = await connection.answers(4)
    assert len(connection.frames()) == 4
    assert "value of key 888888" in parse_ctr_response(answers[1].payload)[2]
    assert answers[2].error_code == 1008
    failed = 0
    for number in (0, 3):
        _, err_code, err_msg = parse_ctr_response(answers[number].payload)
        if err_code:
            assert "Paddle is out of memory" in err_msg
            failed += 1
        else:
            bench.check(bytes(answers[number].payload), *requests[number])
    assert failed == min(faults - 1, 2)
    outcomes = {"ok": 2 - failed, "failed": 1 + failed, "timeout": 1}
    assert bench.counters.requests == Counter(outcomes)
    assert bench.counters.pending == 0


async def test_each_request_of_a_read_has_its_own_deadline(bench: Bench) -> None:
    held = await bench.hold()
    connection = Connection(bench, limits=WireLimits())
    requests = [requests_of(rows, seed=rows) for rows in (1, 2, 3)]
    timeouts_ms = (20, 0, 5000)
    connection.protocol.data_received(
        b"".join(
            frame_of(number, each, timeout_ms=timeout_ms)
            for number, (each, timeout_ms) in enumerate(zip(requests, timeouts_ms, strict=True))
        )
    )
    await asyncio.wait(held, timeout=0.05)
    bench.table.gate.set()
    answers = await connection.answers(3)
    assert answers[0].error_code == 1008
    for number in (1, 2):
        bench.check(bytes(answers[number].payload), *requests[number])
    await asyncio.gather(*held)
    assert bench.counters.requests["timeout"] == 1


async def test_a_deadline_that_passes_during_the_seek_is_told(bench: Bench) -> None:
    bench.table.gate.clear()
    connection = Connection(bench, limits=WireLimits())
    request = requests_of(4)
    connection.protocol.data_received(frame_of(1, request, timeout_ms=20) + frame_of(2, request))
    await bench.table.asked.wait()
    await asyncio.wait([asyncio.ensure_future(bench.table.gate.wait())], timeout=0.05)
    bench.table.gate.set()
    answers = await connection.answers(2)
    assert answers[1].error_code == 1008
    bench.check(bytes(answers[2].payload), *request)


async def test_a_batch_is_found_by_the_number_of_its_first_request(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That of the process may have told all that it may.
    monkeypatch.setattr(batches, "request_log", RequestLog())
    bench.table.slow = True
    connection = Connection(bench, limits=WireLimits())
    log_ids = (0, 71, 72)
    connection.protocol.data_received(
        b"".join(
            frame_of(number, requests_of(1), log_id=log_id) for number, log_id in enumerate(log_ids)
        )
    )
    await connection.answers(3)
    assert bench.table.log_ids == [71]
    assert "a batch of 3 requests (127.0.0.1:5000#0, 71, 72): too slow" in caplog.text


async def test_a_connection_has_in_flight_max_requests_under_way(bench: Bench) -> None:
    bench.table.gate.clear()
    connection = Connection(bench, limits=WireLimits(in_flight_max=3))
    request = requests_of(1)
    connection.protocol.data_received(b"".join(frame_of(number, request) for number in range(8)))
    await bench.table.asked.wait()
    assert bench.counters.pending == 3
    assert not connection.transport.reading
    bench.table.gate.set()
    answers = await connection.answers(8)
    for answer in answers.values():
        bench.check(bytes(answer.payload), *request)
    await until(connection.transport, lambda: connection.transport.reading)


async def test_over_requests_pending_max_is_refused(bench: Bench) -> None:
    bench.table.gate.clear()
    connection = Connection(bench, limits=WireLimits(), pending_max=2)
    request = requests_of(1)
    connection.protocol.data_received(b"".join(frame_of(number, request) for number in range(4)))
    refused = await connection.answers(2)
    assert {number: frame.error_code for number, frame in refused.items()} == {2: 2004, 3: 2004}
    bench.table.gate.set()
    answers = await connection.answers(4)
    bench.check(bytes(answers[0].payload), *request)
    assert bench.counters.requests == {"ok": 2, "limit": 2}


async def test_who_is_gone_is_not_run(bench: Bench) -> None:
    held = await bench.hold()
    connection = Connection(bench, limits=WireLimits())
    connection.protocol.data_received(frame_of(1, requests_of(5)) + frame_of(2, requests_of(1)))
    connection.transport.close()
    connection.protocol.connection_lost(None)
    bench.table.gate.set()
    await asyncio.gather(*held)
    assert bench.table.keys_num == [26, 26]
    assert bench.counters.pending == 0


async def test_a_drained_connection_answers_what_it_took(bench: Bench) -> None:
    bench.table.gate.clear()
    connection = Connection(bench, limits=WireLimits())
    request = requests_of(1)
    connection.protocol.data_received(frame_of(1, request))
    connection.protocol.drain()
    assert not connection.transport.eof_written
    bench.table.gate.set()
    await until(connection.transport, lambda: connection.transport.eof_written)
    bench.check(bytes((await connection.answers(1))[1].payload), *request)


# ------------------------------------------------------------------------------ a predictor


def test_a_predictor_answers_good_and_bad_requests_of_one_read(
    ctr: Ctr, models: dict[int, Path]
) -> None:
    requests = [requests_of(rows, seed=rows, missing=True) for rows in (1, 50, 7, 300)]
    ids, dense = requests[0]
    frames = [frame_of(number, each, timeout_ms=9000) for number, each in enumerate(requests)]
    frames.insert(2, frame_of(50, (np.ascontiguousarray(ids[:, :20]), dense)))
    frames.insert(1, encode_request_frame(SERVICE, "inference", 51, b"\x0a\xff"))
    frames.append(encode_request_frame(SERVICE, "nothing", 52, b""))
    with socket.create_connection(("127.0.0.1", ctr.role.port()), TIMEOUT_S) as connection:
        connection.sendall(b"".join(frames))
        answers: dict[int, Frame] = {}
        rest = b""
        while len(answers) < len(frames):
            received = connection.recv(1 << 16)
            assert received
            found, taken_bytes, _ = parse_frames(rest + received, FRAME_BYTES_MAX)
            rest = (rest + received)[taken_bytes:]
            answers |= {frame.correlation_id: frame for frame in found}
    for number, (each_ids, each_dense) in enumerate(requests):
        probabilities, err_code, _ = parse_ctr_response(answers[number].payload)
        assert err_code == 0
        expected = direct_probabilities(models[1], embedding(each_ids, seed=1), each_dense)
        np.testing.assert_allclose(probabilities, expected, atol=5e-6, rtol=0)
    assert "20 sparse_ids, expected 26" in parse_ctr_response(answers[50].payload)[2]
    assert answers[51].error_code == 1003
    assert answers[52].error_code == 1002
