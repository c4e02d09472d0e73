"""Idle blocking connections by endpoint, shared by the threads of a process."""

from __future__ import annotations

import os
from collections import defaultdict, deque

from cube_api._topology import Topology
from cube_core.endpoint import Endpoint
from cube_core.wire.prpc_blocking import BlockingConnection

IDLE_CONNECTIONS_MAX = 64
"""Idle connections kept to one endpoint; more are closed after use."""


class ConnectionPool:
    """Lends each connection to one thread at a time. A forked child begins with an empty pool, as
    two processes cannot read from one connection.

    Args:
        topology: says how connections have to be made.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._endpoints = topology.endpoints()
        self._idle: defaultdict[Endpoint, deque[BlockingConnection]] = defaultdict(deque)
        self._owner_pid = os.getpid()
        self._closed = False

    def take(self, endpoint: Endpoint) -> BlockingConnection:
        """An idle connection, or a new one.

        Raises:
            ConnectError: it is refused at once, or the host has no address.
        """
        if self._owner_pid != os.getpid():
            self._owner_pid = os.getpid()
            self._close_idle()
        idle = self._idle[endpoint]
        while True:
            try:
                # The last one used: the others may grow old and be closed by the peer.
                connection = idle.pop()
            except IndexError:
                return BlockingConnection(
                    endpoint,
                    connect_timeout_s=self._topology.connect_timeout_s,
                    tls=self._topology.tls_of(endpoint),
                )
            if not connection.is_stale():
                return connection
            connection.close()

    def give_back(self, connection: BlockingConnection) -> None:
        """Takes back a connection that owes no answer."""
        if connection.endpoint not in self._endpoints:
            # A seek began before the topology changed, and nobody else will ask there.
            connection.close()
            return
        idle = self._idle[connection.endpoint]
        if self._closed or len(idle) >= IDLE_CONNECTIONS_MAX:
            connection.close()
        else:
            idle.append(connection)

    def adopt(self, topology: Topology) -> None:
        """Closes idle connections that it does not have, or not in this way; what is lent stays
        usable."""
        before, self._topology = self._topology, topology
        self._endpoints = topology.endpoints()
        kept = topology.connected_alike(before)
        for endpoint in list(self._idle):
            if endpoint not in kept:
                self._close_all(self._idle.pop(endpoint, deque()))

    def close(self) -> None:
        """Closes what is idle; what is lent is closed when it is given back."""
        self._closed = True
        self._close_idle()

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, defaultdict(deque)
        for connections in idle.values():
            self._close_all(connections)

    @staticmethod
    def _close_all(connections: deque[BlockingConnection]) -> None:
        while connections:
            connections.pop().close()
