"""A port that several processes share, held while they come and go."""

from __future__ import annotations

import socket

from cube_core.errors import ConfError


def hold_port(host: str, port: int, flag: str = "--port") -> socket.socket:
    """A socket that is bound to the port and takes no connections, so that the port stays ours
    while workers come and go.

    Args:
        port: 0 for any free one.
        flag: that named the port.

    Raises:
        ConfError: the port is in use.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        if port:
            # A port that is shared can be bound by a second server too: ask without sharing.
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        holder = socket.socket(family)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        raise ConfError("command line", flag, f"cannot listen on {host}:{port}: {error}") from error
    return holder
