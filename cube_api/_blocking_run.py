"""Runs a seek over blocking connections, in the calling thread."""

from __future__ import annotations

import select
import time
from collections import deque
from typing import Any, TypeVar

from cube_api._call import Ask, SeekCall
from cube_api._pool import ConnectionPool
from cube_core.endpoint import Endpoint
from cube_core.errors import ConnectError
from cube_core.wire.prpc_blocking import BlockingConnection

R = TypeVar("R")


def run(call: SeekCall[R], pool: ConnectionPool) -> R:
    """Runs `call` to its end; raises what it raises."""
    exchange = _Exchange(call, pool)
    try:
        exchange.send(call.start())
        while not call.is_done:
            exchange.wait()
    finally:
        exchange.end()
        call.end()
    return call.result()


class _Exchange:
    """The connections of one seek, and the requests in flight on them."""

    def __init__(self, call: SeekCall[Any], pool: ConnectionPool) -> None:
        self._call = call
        self._pool = pool
        self._connections: dict[Endpoint, BlockingConnection] = {}
        self._asks: dict[int, Ask] = {}

    def send(self, asks: list[Ask]) -> None:
        unsent = deque(asks)
        while unsent:
            ask = unsent.popleft()
            self._asks[ask.correlation_id] = ask
            try:
                self._connection(ask.endpoint).send(ask.frame)
            except ConnectError as error:
                unsent.extend(self._lost(ask.endpoint, error))

    def wait(self) -> None:
        """Waits until a connection is ready or something is due, and takes what has arrived on all
        of them."""
        poll = select.poll()
        by_fd: dict[int, BlockingConnection] = {}
        limit_s = self._call.wake_s
        for connection in self._connections.values():
            number = connection.fileno()
            by_fd[number] = connection
            poll.register(number, connection.events)
            limit_s = min(limit_s, connection.wait_limit_s)
        now_s = time.monotonic()
        if now_s >= self._call.deadline_s:
            self._call.expire()
            return
        ready = poll.poll(max(0.0, limit_s - now_s) * 1000)
        # None is ready when the limit was reached: one of them may be late with its connection.
        late = [number for number, c in by_fd.items() if c.wait_limit_s <= limit_s]
        for number in {number for number, _ in ready} | set(late):
            self._advance(by_fd[number])
        if not self._call.is_done:
            self.send(self._call.on_time(time.monotonic()))

    def end(self) -> None:
        """Gives the connections back; those that still owe an answer are closed."""
        owing = {ask.endpoint for ask in self._asks.values()}
        for endpoint, connection in self._connections.items():
            if endpoint in owing:
                connection.close()
            else:
                self._pool.give_back(connection)

    def _connection(self, endpoint: Endpoint) -> BlockingConnection:
        connection = self._connections.get(endpoint)
        if connection is None:
            connection = self._connections[endpoint] = self._pool.take(endpoint)
        return connection

    def _advance(self, connection: BlockingConnection) -> None:
        try:
            frames = connection.advance()
        except ConnectError as error:
            self.send(self._lost(connection.endpoint, error))
            return
        for frame in frames:
            ask = self._asks.pop(frame.correlation_id, None)
            if ask is not None:
                self.send(self._call.on_outcome(ask, frame))

    def _lost(self, endpoint: Endpoint, error: ConnectError) -> list[Ask]:
        self._connections.pop(endpoint, None)
        lost = [ask for ask in self._asks.values() if ask.endpoint == endpoint]
        again: list[Ask] = []
        for ask in lost:
            del self._asks[ask.correlation_id]
            again += self._call.on_outcome(ask, error)
        return again
