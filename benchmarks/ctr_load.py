"""Load on a predictor that costs the measuring process as little as can be."""

from __future__ import annotations

import contextlib
import json
import select
import selectors
import socket
import time
from collections.abc import Sequence

from cube_core._native import encode_request_frame, parse_frames

_SERVICE = "baidu.paddle_serving.predictor.ctr_prediction.CTRPredictionService"
_FRAME_BYTES_MAX = 64 << 20


def answer_all(port: int, payloads: Sequence[bytes], requests: int, in_flight: int) -> float:
    """Sends requests over one connection, `in_flight` at a time; returns answers per second.

    Raises:
        RuntimeError: an answer is an error, or the connection was lost.
    """
    frames = [
        encode_request_frame(_SERVICE, "inference", number + 1, payload)
        for number, payload in enumerate(payloads)
    ]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start_s = time.perf_counter()
        sent, answered, rest = 0, 0, b""
        while answered < requests:
            due = min(in_flight - (sent - answered), requests - sent)
            connection.sendall(b"".join(frames[(sent + i) % len(frames)] for i in range(due)))
            sent += due
            received = connection.recv(1 << 18)
            if not received:
                raise RuntimeError("the predictor closed the connection")
            rest += received
            found, taken_bytes, _ = parse_frames(rest, _FRAME_BYTES_MAX)
            for frame in found:
                if frame.error_code:
                    raise RuntimeError(frame.error_text)
            answered += len(found)
            rest = rest[taken_bytes:]
        return requests / (time.perf_counter() - start_s)


def answer_each(
    port: int, payloads: Sequence[bytes], requests: int, connections: int
) -> tuple[float, list[float]]:
    """Sends requests over many connections, one at a time on each.

    Returns:
        answers per second, and latencies in µs.

    Raises:
        RuntimeError: an answer is an error, or a connection was lost.
    """
    frames = [encode_request_frame(_SERVICE, "inference", 1, payload) for payload in payloads]
    latencies_us: list[float] = []
    with contextlib.ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        all_connections = []
        for number in range(connections):
            connection = socket.create_connection(("127.0.0.1", port), timeout=30)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            all_connections.append(stack.enter_context(connection))
            selector.register(connection, selectors.EVENT_READ, number)
        sent_s = [0.0] * connections
        start_s = time.perf_counter()
        sent = 0
        ready = list(range(connections))
        while len(latencies_us) < requests:
            for number in ready[: requests - sent]:
                sent_s[number] = time.perf_counter()
                all_connections[number].sendall(frames[sent % len(frames)])
                sent += 1
            ready = [key.data for key, _ in selector.select()]
            for number in ready:
                # An answer of one row comes in one piece.
                received = all_connections[number].recv(1 << 16)
                found, _, _ = parse_frames(received, _FRAME_BYTES_MAX)
                if len(found) != 1 or found[0].error_code:
                    raise RuntimeError(found[0].error_text if found else "a connection was lost")
                latencies_us.append((time.perf_counter() - sent_s[number]) * 1e6)
        return requests / (time.perf_counter() - start_s), latencies_us


def tell(ports: Sequence[int], command: str, version: str) -> list[socket.socket]:
    """Sends a control command to servers; the answers may be read from what it returns."""
    body = json.dumps({"cmd": command, "version": version}).encode()
    head = (
        "POST /ControlService/cmd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connections = []
    for port in ports:
        connection = socket.create_connection(("127.0.0.1", port), timeout=30)
        connection.sendall(head.encode() + body)
        connections.append(connection)
    return connections


def answer_at_rate(
    port: int, payloads: Sequence[bytes], rate: float, seconds: float, timeout_ms: int
) -> tuple[list[float], int]:
    """Sends requests when they are due, answered or not, each with the caller's timeout.

    Returns:
        latencies in µs of those answered, counted from when they were due, and how many were
        refused.
    """
    requests = int(rate * seconds)
    latencies_us: list[float] = []
    refused, sent, rest, unsent = 0, 0, b"", b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        start_s = time.perf_counter()
        while len(latencies_us) + refused < requests:
            due = min(int((time.perf_counter() - start_s) * rate) + 1, requests)
            unsent += b"".join(
                _due_frame(number, payloads, timeout_ms) for number in range(sent, due)
            )
            sent = due
            writers = [connection] if unsent else []
            readable, writable, _ = select.select([connection], writers, [], 1 / rate)
            if writable:
                unsent = unsent[connection.send(unsent) :]
            if not readable:
                continue
            received = connection.recv(1 << 18)
            if not received:
                raise RuntimeError("the predictor closed the connection")
            rest += received
            found, taken_bytes, _ = parse_frames(rest, _FRAME_BYTES_MAX)
            rest = rest[taken_bytes:]
            now_s = time.perf_counter()
            for frame in found:
                if frame.error_code:
                    refused += 1
                else:
                    due_s = start_s + (frame.correlation_id - 1) / rate
                    latencies_us.append((now_s - due_s) * 1e6)
    return latencies_us, refused


def _due_frame(number: int, payloads: Sequence[bytes], timeout_ms: int) -> bytes:
    payload = payloads[number % len(payloads)]
    return encode_request_frame(_SERVICE, "inference", number + 1, payload, timeout_ms=timeout_ms)
