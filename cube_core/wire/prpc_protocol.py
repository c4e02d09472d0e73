"""Server side of baidu_std on one connection."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol, cast

from cube_core._native import (
    Frame,
    encode_error_frame,
    encode_response_frame,
    parse_frames,
)
from cube_core.errors import FormatError, WireError
from cube_core.log import set_request_id
from cube_core.request_log import request_log
from cube_core.wire.batch_path import BatchPath
from cube_core.wire.compression import expand_off_loop
from cube_core.wire.connections import Connections
from cube_core.wire.faults import fault_of, fault_text
from cube_core.wire.limits import WireLimits
from cube_core.wire.peer_watch import PeerWatch
from cube_core.wire.service import Method, RpcContext, ServiceTable, prpc_request_id

log = logging.getLogger(__name__)

_HEADER_BYTES = 12
_THREAD_ENCODE_BYTES_MIN = 1 << 20
_LINGER_S = 0.2


class FastPath(Protocol):
    """A kernel that answers frames of one method by itself (`_native.Seeker`)."""

    def serve(
        self, data: bytes | memoryview, payload_bytes_max: int, address: str
    ) -> tuple[bytes, Sequence[Frame], int, int]:
        """Reply bytes, frames it does not answer, bytes taken, bytes needed for the next frame;
        `address` is that of this server, for error texts."""


class PrpcProtocol(asyncio.Protocol):
    """Answers baidu_std requests: with the fast path in the same call that brought the bytes, with
    the batch path those of one read together, and everything else in tasks, so that a slow request
    holds up nothing behind it.

    A peer that sends what is no frame is cut off; a request that cannot be taken gets an error
    frame, and the connection goes on.
    """

    def __init__(
        self,
        table: ServiceTable,
        limits: WireLimits,
        connections: Connections,
        fast_path: FastPath | None = None,
        batch_path: BatchPath | None = None,
    ) -> None:
        self._table = table
        self._limits = limits
        self._connections = connections
        self._fast_path = fast_path
        self._batch_path = batch_path
        self._partial = bytearray()
        self._needed_bytes = _HEADER_BYTES
        self._in_flight: set[asyncio.Task[None]] = set()
        self._in_batches = 0
        self._in_threads = 0
        self._token = ""
        self._waiting: deque[Frame] = deque()
        self._write_paused = False
        self._read_paused = False
        self._draining = False

    # ------------------------------------------------------------------------------ asyncio side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.peer = address_text(transport.get_extra_info("peername"))
        self._address = address_text(transport.get_extra_info("sockname"))
        self._connections.replace(self._transport, self)
        self._watch = PeerWatch(self._limits, self._loop, self._close_idle, self._abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._watch.end()
        self._connections.remove(self._transport)
        self._connections.unread.forget(self)
        self._hold(b"")
        self._waiting.clear()
        # Nobody reads the answers any more.
        for task in self._in_flight:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self._draining or self._transport.is_closing():
            return
        self._watch.active = True
        if not self._partial and not self._read_paused:
            self._take(data)
            return
        held_bytes = len(self._partial) + len(data)
        if self._connections.partial_bytes + len(data) > self._limits.partial_bytes_max:
            self._cut_off(
                f"partial_bytes_max={self._limits.partial_bytes_max} bytes of frames that are not"
                " whole are held for all connections"
            )
            return
        self._connections.partial_bytes += len(data)
        self._partial += data
        if held_bytes >= self._needed_bytes and not self._read_paused:
            self._take_held()

    def pause_writing(self) -> None:
        self._write_paused = True
        self._watch.unread()
        self._count_unread()
        # The write that filled the buffer may have more to come.
        self._loop.call_soon(self._count_unread)
        self._gate_reading()

    def resume_writing(self) -> None:
        self._write_paused = False
        self._watch.read()
        self._connections.unread.forget(self)
        self._go_on_waiting()
        if self._draining:
            self._finish_if_answered()
        else:
            self._gate_reading()

    def drain(self) -> None:
        """Drops what comes from now on, and ends the connection once all is answered."""
        self._draining = True
        self._hold(b"")
        self._finish_if_answered()

    # ------------------------------------------------------------------------------ requests

    def _take(self, data: bytes | memoryview) -> None:
        """Answers the frames in `data` and keeps what is left."""
        try:
            rest = self._answer_frames(data)
        except WireError as error:
            self._cut_off(str(error))
            return
        if not rest:
            self._watch.whole()
        else:
            self._watch.partial(another=len(rest) < len(data))
        if rest or self._partial:
            self._hold(rest)

    def _take_held(self) -> None:
        # Frames keep views of what they were cut from, so that must not grow any more.
        held, self._partial = self._partial, bytearray()
        self._connections.partial_bytes -= len(held)
        self._take(memoryview(held))

    def _hold(self, rest: bytes | memoryview) -> None:
        self._connections.partial_bytes += len(rest) - len(self._partial)
        self._partial = bytearray(rest)

    def _answer_frames(self, data: bytes | memoryview) -> bytes | memoryview:
        """Answers, or begins to answer, complete frames until the connection has enough under
        way; returns the bytes after them."""
        rest: bytes | memoryview = data
        while True:
            frames: Sequence[Frame]
            if self._fast_path is not None:
                reply, frames, taken_bytes, self._needed_bytes = self._fast_path.serve(
                    rest, self._limits.loop_payload_bytes_max, self._address
                )
                if reply:
                    self._transport.write(reply)
            elif self._batch_path is not None:
                room = max(1, self._limits.in_flight_max - self._under_way)
                frames, requests, taken_bytes, self._needed_bytes = self._batch_path.take(
                    rest, room, self
                )
                if requests:
                    self._in_batches += requests
                    self._watch.busy = True
                    self._gate_reading()
            else:
                frames, taken_bytes, self._needed_bytes = parse_frames(
                    rest, self._limits.frame_bytes_max
                )
            if frames:
                self._waiting.extend(frames)
                self._go_on_waiting()
            if taken_bytes == len(rest):
                return b""
            if taken_bytes:
                rest = memoryview(rest)[taken_bytes:]
            # Bytes that are no frame, behind good frames, are told by the next call.
            if not taken_bytes or len(rest) < self._needed_bytes or self._read_paused:
                return rest

    def _go_on_waiting(self) -> None:
        """Begins frames that came whole, until the connection has enough under way."""
        while self._waiting and not self._has_enough():
            self._begin(self._waiting.popleft())

    @property
    def _under_way(self) -> int:
        return len(self._in_flight) + self._in_batches

    def _has_enough(self) -> bool:
        return (
            self._write_paused
            or self._under_way >= self._limits.in_flight_max
            or self._in_threads >= self._limits.threads_per_connection_max
        )

    def _begin(self, frame: Frame) -> None:
        try:
            method = self._table.find(frame.service, frame.method)
            if frame.fault:
                raise FormatError(frame.fault)
        except Exception as error:
            self._write(self.error_frame(frame.correlation_id, error))
            request_id = prpc_request_id(frame.log_id, self.peer, frame.correlation_id)
            request_log.failed(_name_of(frame), error, peer=self.peer, request_id=request_id)
            return
        task = self._loop.create_task(self._answer(method, frame))
        self._in_flight.add(task)
        self._watch.busy = True
        if method.kernel is not None:
            self._in_threads += 1
            task.add_done_callback(self._leave_thread)
        task.add_done_callback(self._end)
        self._gate_reading()

    async def _answer(self, method: Method, frame: Frame) -> None:
        begin_s = time.monotonic()
        deadline_s = begin_s + frame.timeout_ms / 1000 if frame.timeout_ms > 0 else None
        # As brpc's clients do, a connection may show its credential once.
        self._token = frame.authentication or self._token
        context = RpcContext(
            self.peer,
            frame.log_id,
            deadline_s,
            self._token,
            frame.attachment,
            correlation_id=frame.correlation_id,
        )
        set_request_id(context.request_id)
        try:
            request: memoryview | bytes = frame.payload
            if frame.compress_type:
                limit = self._limits.frame_bytes_max
                request = await expand_off_loop(request, frame.compress_type, limit)
            payload = await method.handler(request, context)
            reply = await _encoded(frame.correlation_id, payload, context.response_attachment)
        except Exception as error:
            reply = self.error_frame(frame.correlation_id, error)
            request_log.failed(_name_of(frame), error, peer=self.peer)
        took_s = time.monotonic() - begin_s
        if took_s > request_log.slow_s:
            request_log.slow(_name_of(frame), took_s, peer=self.peer)
        self._write(reply)

    def _leave_thread(self, _: asyncio.Task[None]) -> None:
        self._in_threads -= 1

    def _end(self, task: asyncio.Task[None]) -> None:
        self._in_flight.discard(task)
        self._after_answer()

    def _after_answer(self) -> None:
        if self._transport.is_closing():
            return
        if self._waiting:
            self._go_on_waiting()
        self._watch.busy = self._under_way > 0
        if self._draining:
            self._finish_if_answered()
        else:
            self._gate_reading()

    # ------------------------------------------------------------------------------ as a Caller

    @property
    def is_open(self) -> bool:
        return not self._transport.is_closing()

    def answer(self, frames: bytes, requests: int) -> None:
        self._in_batches -= requests
        self._write(frames)
        self._after_answer()

    def error_frame(self, correlation_id: int, error: Exception) -> bytes:
        fault = fault_of(error)
        return encode_error_frame(correlation_id, fault.code, fault_text(self._address, fault))

    # ------------------------------------------------------------------------------ connection

    def _write(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        waiting_bytes = self._transport.get_write_buffer_size()
        limit = self._limits.write_buffer_bytes_max
        if waiting_bytes and waiting_bytes + len(data) > limit:
            self._abort(f"{waiting_bytes} bytes wait to be read, write_buffer_bytes_max={limit}")
            return
        self._transport.write(data)
        self._count_unread()

    def _count_unread(self) -> None:
        if self._write_paused and not self._transport.is_closing():
            self._connections.bound_unread(self)

    @property
    def unread_bytes(self) -> int:
        """Answers that wait for the peer to read them."""
        return self._transport.get_write_buffer_size()

    def cut_off(self, reason: str) -> None:
        """Closes the connection at once, without what waits for its peer."""
        if not self._transport.is_closing():
            self._abort(reason)

    def _gate_reading(self) -> None:
        """Reads nothing more while the peer does not take its answers or waits for enough."""
        pause = self._has_enough()
        if pause == self._read_paused or self._transport.is_closing():
            return
        self._read_paused = pause
        self._watch.pause(pause)
        if pause:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
            if self._partial:
                # Not at once: the transport may be in the midst of a write.
                self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Takes the whole frames that had to wait."""
        ready = not (self._read_paused or self._draining or self._transport.is_closing())
        if ready and len(self._partial) >= self._needed_bytes:
            self._take_held()

    def _cut_off(self, reason: str) -> None:
        """Closes the connection once what was answered before is sent."""
        self._connections.counters.peers_cut_off += 1
        log.warning("%s is cut off: %s", self.peer, reason)
        self._hold(b"")
        self._transport.close()

    def _abort(self, reason: str) -> None:
        """Closes the connection to a peer that takes no more answers, or too slowly sends."""
        self._connections.counters.peers_cut_off += 1
        log.warning("%s is cut off: %s", self.peer, reason)
        self._transport.abort()

    def _close_idle(self) -> None:
        self._connections.counters.connections_idle += 1
        log.info("%s is closed: idle for %d ms", self.peer, self._limits.idle_timeout_ms)
        # What a peer has left unread until now is lost on it.
        self._transport.abort()

    def _finish_if_answered(self) -> None:
        if self._under_way or self._waiting or self._transport.is_closing():
            return
        # Closing at once would reset the connection when the peer has sent more meanwhile, and
        # a reset takes answers with it that the peer has not read yet.
        if self._transport.can_write_eof():  # not over TLS
            self._transport.write_eof()
        self._loop.call_later(_LINGER_S, self._transport.close)


def _name_of(frame: Frame) -> str:
    return f"{frame.service.rpartition('.')[2]}.{frame.method}"


def address_text(address: object) -> str:
    """host:port of what `get_extra_info("peername")` or "sockname" gives."""
    if isinstance(address, tuple) and len(address) >= 2:
        return f"{address[0]}:{address[1]}"
    return "unknown"


async def _encoded(correlation_id: int, payload: bytes, attachment: bytes) -> bytes:
    if len(payload) + len(attachment) < _THREAD_ENCODE_BYTES_MIN:
        return encode_response_frame(correlation_id, payload, attachment=attachment)
    return await asyncio.to_thread(
        encode_response_frame, correlation_id, payload, attachment=attachment
    )
