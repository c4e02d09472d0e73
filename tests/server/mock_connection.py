"""A baidu_std connection without a socket: the protocol, a transport that keeps what is written,
and the original's own frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

from cube_core._native import Frame, Seeker, parse_frames
from cube_core.errors import LimitError
from cube_core.wire.connections import Connections
from cube_core.wire.limits import WireLimits
from cube_core.wire.prpc_protocol import PrpcProtocol
from cube_core.wire.service import RpcContext, Service, ServiceTable
from cube_proto import baidu_rpc_meta_pb2, control_pb2, dict_pb2

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
        self.unread_bytes = 0

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += bytes(data)
        self.changed.set()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof_written = True
        self.changed.set()

    def close(self) -> None:
        self.closed = True
        self.changed.set()

    def abort(self) -> None:
        self.close()

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
