"""Limits of a server's wire, each with a name and a default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WireLimits:
    """What one server takes from its peers.

    Attributes:
        frame_bytes_max: one baidu_std frame, one HTTP body, one gRPC message.
        connections_max: open connections of the baidu_std and HTTP port; one more is closed.
        in_flight_max: requests of one baidu_std connection that are answered off the event loop;
            at this number no more is read from the connection until one is answered.
        loop_payload_bytes_max: a larger seek is answered by a thread, off the event loop.
        http_head_bytes_max: request line and headers of one HTTP request.
        grpc_threads: gRPC requests worked on at the same time.
        grpc_queue_max: gRPC requests waiting or worked on; one more is RESOURCE_EXHAUSTED.
    """

    frame_bytes_max: int = 64 << 20
    connections_max: int = 10_000
    in_flight_max: int = 256
    loop_payload_bytes_max: int = 64 << 10
    http_head_bytes_max: int = 64 << 10
    grpc_threads: int = 16
    grpc_queue_max: int = 1024
