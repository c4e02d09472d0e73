"""The baidu_std protocol, driven by bytes: no sockets."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_core._native import Frame, Seeker, Table, encode_request_frame, parse_frames
from cube_core.errors import LimitError
from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.port import PortProtocol
from cube_core.wire.prpc_protocol import PrpcProtocol
from cube_core.wire.service import RpcContext, Service, ServiceTable
from cube_proto import baidu_rpc_meta_pb2, control_pb2, dict_pb2
from tests.server.tables import make_table

# Captured from the original's client and server.
REQUEST = bytes.fromhex(
    "505250430000002d00000023"
    "0a1d0a157265632e6d637562652e446963745365727669636512047365656b180020060801080208ff93ebdc03"
)
VALUE_1 = "0000803f0000883f0000903f0000983f0000a03f0000a83f0000b03f0000b83f0000c03f0000c83f"
VALUE_2 = "00000040000004400000084000000c4000001040000014400000184000001c400000204000002440"
RESPONSE = bytes.fromhex(
    "505250430000006e000000081202080018002006"
    f"0a2c08001228{VALUE_1}0a2c08001228{VALUE_2}0a0808ffffffff0f1200"
)
LIMITS = WireLimits(frame_bytes_max=1 << 20, in_flight_max=3, loop_payload_bytes_max=4096)


TIMEOUT_S = 5.0


class MockTransport(asyncio.Transport):
    """Keeps what is written; its buffer is full when the test says so."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5000), "sockname": ("127.0.0.1", 8000)})
        self.written = b""
        self.closed = False
        self.reading = True
        self.eof_written = False
        self.protocol: asyncio.BaseProtocol | None = None
        self.changed = asyncio.Event()

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += bytes(data)
        self.changed.set()

    def write_eof(self) -> None:
        self.eof_written = True
        self.changed.set()

    def close(self) -> None:
        self.closed = True
        self.changed.set()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self.changed.set()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol


class Commands:
    """Answers ControlService.cmd when the test lets it."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.contexts: list[RpcContext] = []

    async def cmd(self, payload: memoryview | bytes, context: RpcContext) -> bytes:
        self.contexts.append(context)
        await self.released.wait()
        if bytes(payload) == b"limit":
            raise LimitError("over some_limit=3")
        if bytes(payload) == b"bug":
            raise KeyError("secret")
        context.response_attachment = bytes(context.attachment)[::-1]
        return bytes(payload)


@pytest.fixture(scope="module")
def seeker(tmp_path_factory: pytest.TempPathFactory) -> Seeker:
    path = tmp_path_factory.mktemp("table") / "t.table"
    make_table(path, 0)
    seeker = Seeker(1000, LIMITS.frame_bytes_max)
    seeker.set_tables(Table.open(str(path)))
    return seeker


def services(seeker: Seeker, commands: Commands) -> ServiceTable:
    return ServiceTable(
        [
            Service(
                dict_pb2.DESCRIPTOR.services_by_name["DictService"], kernels={"seek": seeker.seek}
            ),
            Service(
                control_pb2.DESCRIPTOR.services_by_name["ControlService"], {"cmd": commands.cmd}
            ),
        ]
    )


def connect(
    seeker: Seeker, *, fast: bool = True, commands: Commands | None = None
) -> tuple[PrpcProtocol, MockTransport]:
    table = services(seeker, commands or Commands())
    protocol = PrpcProtocol(table, LIMITS, Connections(10), seeker if fast else None)
    transport = MockTransport()
    protocol.connection_made(transport)
    return protocol, transport


def error_of(frame: bytes) -> tuple[int, int, str]:
    """correlation_id, error_code and error_text of an error frame, read with protobuf."""
    body_bytes, meta_bytes = struct.unpack(">II", frame[4:12])
    assert body_bytes == meta_bytes == len(frame) - 12
    meta = baidu_rpc_meta_pb2.RpcMeta.FromString(frame[12:])
    return meta.correlation_id, meta.response.error_code, meta.response.error_text


async def until(transport: MockTransport, condition: Callable[[], bool]) -> None:
    """Waits, with a deadline, until something done to the transport makes the condition true."""

    async def wait() -> None:
        while not condition():
            transport.changed.clear()
            await transport.changed.wait()

    await asyncio.wait_for(wait(), TIMEOUT_S)


async def answered(transport: MockTransport, count: int) -> list[Frame]:
    await until(transport, lambda: len(parse_frames(transport.written, 64 << 20)[0]) >= count)
    return parse_frames(transport.written, 64 << 20)[0]


async def test_answers_the_original_client_byte_for_byte(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(REQUEST)
    assert transport.written == RESPONSE


async def test_answers_the_same_without_the_fast_path(seeker: Seeker) -> None:
    protocol, transport = connect(seeker, fast=False)
    protocol.data_received(REQUEST)
    await answered(transport, 1)
    assert transport.written == RESPONSE


async def test_frames_may_be_cut_anywhere(seeker: Seeker) -> None:
    two = REQUEST + REQUEST
    for cut in range(1, len(two)):
        protocol, transport = connect(seeker)
        protocol.data_received(two[:cut])
        protocol.data_received(two[cut:])
        assert transport.written == RESPONSE * 2


async def test_bytes_may_come_one_at_a_time(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    for byte in REQUEST * 2:
        protocol.data_received(bytes([byte]))
    assert transport.written == RESPONSE * 2


async def test_a_pipeline_is_answered_in_one_write_in_order(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    frames = b"".join(
        encode_request_frame("DictService", "seek", number, b"\x08\x01") for number in range(1, 50)
    )
    protocol.data_received(frames)
    ids = [frame.correlation_id for frame in parse_frames(transport.written, 1 << 20)[0]]
    assert ids == list(range(1, 50))


async def test_a_slow_request_holds_up_nothing_behind_it(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    slow = encode_request_frame(
        "ControlService", "cmd", 7, b"x", attachment=b"abc", timeout_ms=500, log_id=9
    )
    protocol.data_received(slow + REQUEST)
    assert transport.written == RESPONSE
    commands.released.set()
    frame = (await answered(transport, 2))[1]
    assert (frame.correlation_id, bytes(frame.payload), bytes(frame.attachment)) == (
        7,
        b"x",
        b"cba",
    )
    context = commands.contexts[0]
    assert (context.peer, context.log_id) == ("127.0.0.1:5000", 9)
    assert context.deadline_s is not None


async def test_large_seeks_are_answered_off_the_loop(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    # Ten bytes a key: 4097 bytes are over the limit of this test's loop_payload_bytes_max.
    payload = dict_pb2.DictRequest(keys=[2**64 - 1] * 500).SerializeToString()
    assert len(payload) > LIMITS.loop_payload_bytes_max
    protocol.data_received(encode_request_frame("DictService", "seek", 5, payload) + REQUEST)
    frames = await answered(transport, 2)
    assert [frame.correlation_id for frame in frames] == [6, 5]
    large = dict_pb2.DictResponse.FromString(bytes(frames[1].payload))
    assert [value.status for value in large.values] == [0xFFFFFFFF] * 500


@pytest.mark.parametrize(
    ("service", "method", "code", "text"),
    [
        ("rec.mcube.Nope", "seek", 1002, "Fail to find method=rec.mcube.Nope/seek"),
        ("DictService", "nope", 1002, "Fail to find method=DictService/nope"),
    ],
)
async def test_unknown_methods_are_named(
    seeker: Seeker, service: str, method: str, code: int, text: str
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(encode_request_frame(service, method, 3, b"") + REQUEST)
    assert transport.written.startswith(RESPONSE), "the request behind it is answered"
    error = error_of(transport.written.removeprefix(RESPONSE))
    assert error == (3, code, f"[127.0.0.1:8000][E{code}]{text}")
    assert not transport.closed


def raw_frame(meta: baidu_rpc_meta_pb2.RpcMeta, payload: bytes = b"") -> bytes:
    head = meta.SerializeToString()
    return b"PRPC" + struct.pack(">II", len(head) + len(payload), len(head)) + head + payload


def seek_meta(**fields: Any) -> baidu_rpc_meta_pb2.RpcMeta:
    request = baidu_rpc_meta_pb2.RpcRequestMeta(service_name="DictService", method_name="seek")
    return baidu_rpc_meta_pb2.RpcMeta(request=request, correlation_id=4, **fields)


@pytest.mark.parametrize(
    ("frame", "code", "text"),
    [
        (
            raw_frame(baidu_rpc_meta_pb2.RpcMeta(correlation_id=4)),
            1001,
            "Fail to find service=",
        ),
        (
            raw_frame(seek_meta(), b"\x08\xff"),
            1003,
            "Fail to parse request message, CompressType=none, request_size=2",
        ),
        (
            raw_frame(seek_meta(attachment_size=3000), b"\x08\x01"),
            1003,
            "attachment_size=3000 is larger than request_size=2",
        ),
        (
            raw_frame(seek_meta(compress_type=1), b"\x08\x01"),
            1003,
            "Fail to parse request message, CompressType=snappy, request_size=2",
        ),
        (raw_frame(seek_meta(), b"\x08\x01" * 1001), 2004, "1000"),
        (
            raw_frame(seek_meta(), dict_pb2.DictRequest(version="9_9").SerializeToString()),
            2001,
            "9_9",
        ),
    ],
    ids=["no_request", "malformed", "attachment", "compressed", "keys_per_request_max", "version"],
)
async def test_requests_that_cannot_be_taken_get_an_error_frame(
    seeker: Seeker, frame: bytes, code: int, text: str
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(frame)
    correlation_id, found_code, found_text = error_of(transport.written)
    assert (correlation_id, found_code) == (4, code)
    assert text in found_text
    transport.written = b""
    protocol.data_received(REQUEST)
    assert transport.written == RESPONSE


async def test_failures_of_handlers_are_answered(seeker: Seeker) -> None:
    commands = Commands()
    commands.released.set()
    protocol, transport = connect(seeker, commands=commands)
    protocol.data_received(encode_request_frame("ControlService", "cmd", 1, b"limit"))
    await answered(transport, 1)
    assert error_of(transport.written) == (1, 2004, "[127.0.0.1:8000][E2004]over some_limit=3")
    transport.written = b""
    protocol.data_received(encode_request_frame("ControlService", "cmd", 2, b"bug"))
    await answered(transport, 1)
    assert error_of(transport.written)[1] == 2001
    assert b"secret" not in transport.written


@pytest.mark.parametrize(
    "garbage",
    [
        b"PRPX" + REQUEST[4:],
        b"PRPC" + struct.pack(">II", 5, 6) + b"xxxxx",
        b"PRPC" + struct.pack(">II", (1 << 20) + 1, 6),
        b"PRPC" + struct.pack(">II", 3, 3) + b"\x0a\xff\xff",
    ],
    ids=["magic", "meta_over_body", "frame_bytes_max", "meta"],
)
async def test_peers_that_send_no_frames_are_cut_off(
    seeker: Seeker, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    protocol, transport = connect(seeker)
    protocol.data_received(REQUEST + garbage)
    assert transport.written == RESPONSE, "what came before is answered"
    assert transport.closed
    assert len(caplog.records) == 1
    assert "127.0.0.1:5000" in caplog.text


async def test_reads_no_more_than_the_peer_takes(seeker: Seeker) -> None:
    protocol, transport = connect(seeker)
    protocol.pause_writing()
    assert not transport.reading
    protocol.resume_writing()
    assert transport.reading


async def test_reads_no_more_with_in_flight_max_requests_under_way(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    slow = encode_request_frame("ControlService", "cmd", 1, b"")
    for _ in range(LIMITS.in_flight_max):
        assert transport.reading
        protocol.data_received(slow)
    assert not transport.reading
    commands.released.set()
    await answered(transport, LIMITS.in_flight_max)
    await until(transport, lambda: transport.reading)


async def test_drain_answers_what_is_under_way(seeker: Seeker) -> None:
    commands = Commands()
    protocol, transport = connect(seeker, commands=commands)
    protocol.data_received(encode_request_frame("ControlService", "cmd", 1, b"x"))
    protocol.drain()
    protocol.data_received(REQUEST)
    assert (transport.written, transport.eof_written) == (b"", False)
    commands.released.set()
    await answered(transport, 1)
    await until(transport, lambda: transport.eof_written)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_bytes_are_answered_or_cut_off(seeker: Seeker, data: st.DataObject) -> None:
    """Mutated frames, cut anywhere: the server answers with frames or closes, and never raises."""

    async def run() -> None:
        stream = bytearray(REQUEST * 2)
        for _ in range(data.draw(st.integers(0, 4))):
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
        stream += data.draw(st.binary(max_size=40))
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
        protocol, transport = connect(seeker)
        for start, end in itertools.pairwise([0, *cuts, len(stream)]):
            protocol.data_received(bytes(stream[start:end]))
        frames, taken_bytes, _ = parse_frames(transport.written, 1 << 20)
        assert taken_bytes == len(transport.written)
        assert not any(frame.is_request for frame in frames)

    asyncio.run(run())


class TestPort:
    """The start of a connection says who speaks."""

    def port(self, seeker: Seeker, connections: Connections) -> tuple[PortProtocol, MockTransport]:
        http_ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        table = services(seeker, Commands())
        protocol = PortProtocol(
            connections, lambda: PrpcProtocol(table, LIMITS, connections, seeker), http_ready
        )
        transport = MockTransport()
        protocol.connection_made(transport)
        return protocol, transport

    async def test_baidu_std_is_told_by_its_first_bytes(self, seeker: Seeker) -> None:
        for cut in (1, 3, 4, 20):
            protocol, transport = self.port(seeker, Connections(1))
            protocol.data_received(REQUEST[:cut])
            speaker = protocol if transport.protocol is None else transport.protocol
            assert isinstance(speaker, asyncio.Protocol)
            speaker.data_received(REQUEST[cut:])
            assert transport.written == RESPONSE

    async def test_what_is_neither_is_closed(self, seeker: Seeker) -> None:
        connections = Connections(1)
        protocol, transport = self.port(seeker, connections)
        protocol.data_received(b"\x16\x03\x01\x00")
        assert (transport.closed, transport.written) == (True, b"")
        assert connections.counters.peers_cut_off == 1

    async def test_http_waits_for_its_app_unread(self, seeker: Seeker) -> None:
        protocol, transport = self.port(seeker, Connections(1))
        protocol.data_received(b"GET / HTTP/1.1\r\n\r\n")
        assert not transport.reading
        assert not transport.closed

    async def test_connections_over_the_limit_are_refused(
        self, seeker: Seeker, caplog: pytest.LogCaptureFixture
    ) -> None:
        connections = Connections(1)
        _, first = self.port(seeker, connections)
        _, second = self.port(seeker, connections)
        assert (first.closed, second.closed) == (False, True)
        assert "connections_max=1" in caplog.text


def test_services_name_every_method_once() -> None:
    descriptor = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
    with pytest.raises(ValueError, match="ControlService"):
        Service(descriptor, {})
    with pytest.raises(ValueError, match="nope"):
        Service(descriptor, {"nope": Commands().cmd})
