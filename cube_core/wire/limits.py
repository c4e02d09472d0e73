"""Limits of a server's wire, each with a name and a default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WireLimits:
    """What one server takes from its peers.

    Attributes:
        frame_bytes_max: one baidu_std frame, one HTTP body, one gRPC message.
        partial_bytes_max: parts of baidu_std frames that have not come whole, all connections
            together; a connection that would go over it is cut off.
        connections_max: open connections of the baidu_std and HTTP port; one more is closed.
        idle_timeout_ms: a connection that neither sends nor waits for an answer for so long is
            closed; 0 for never.
        frame_timeout_ms: a frame or HTTP request must come whole within this after its first
            byte, else its connection is cut off; 0 for any time.
        handshake_timeout_ms: for a peer to complete its TLS handshake, else it is cut off.
        in_flight_max: requests of one baidu_std connection that are answered off the event loop;
            at this number no more is read from the connection until one is answered.
        threads_per_connection_max: requests of one baidu_std connection that are in threads; at
            this number no more is read from it until one is answered.
        write_buffer_bytes_max: answers that wait for one peer to read them. Above 64 KiB nothing
            more is read from it; an answer that would go over the limit cuts it off. One answer
            may always wait, however long it is.
        unread_bytes_max: answers that wait to be read, all baidu_std and HTTP connections together;
            the peer with the most is cut off when they go over it.
        write_timeout_ms: a peer that does not read what waits for it, down to 64 KiB, within this
            is cut off; 0 for any time.
        slow_request_ms: a request that takes longer has a line in the log; 0 for none.
        loop_payload_bytes_max: a larger seek is answered by a thread, off the event loop.
        http_head_bytes_max: request line and headers of one HTTP request.
        grpc_threads: gRPC requests worked on at the same time.
        grpc_queue_max: gRPC requests waiting or worked on; one more is RESOURCE_EXHAUSTED.
    """

    frame_bytes_max: int = 64 << 20
    partial_bytes_max: int = 1 << 30
    connections_max: int = 10_000
    idle_timeout_ms: int = 600_000
    frame_timeout_ms: int = 30_000
    handshake_timeout_ms: int = 10_000
    in_flight_max: int = 256
    threads_per_connection_max: int = 8
    write_buffer_bytes_max: int = 256 << 20
    unread_bytes_max: int = 1 << 30
    write_timeout_ms: int = 30_000
    slow_request_ms: int = 1000
    loop_payload_bytes_max: int = 64 << 10
    http_head_bytes_max: int = 64 << 10
    grpc_threads: int = 16
    grpc_queue_max: int = 1024
