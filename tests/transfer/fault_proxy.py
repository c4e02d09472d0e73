"""A proxy in front of a real shard server that can hold, refuse and change control commands."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Command = dict[str, Any]


class FaultProxy:
    """Forwards `POST /ControlService/cmd`, for which the test sets faults, and `GET`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.commands: list[str] = []
        """What arrived, in order."""
        self.change: Callable[[Command], Command] = lambda command: command
        self.failing: set[str] = set()
        """Commands answered with 500."""
        self._held: dict[str, threading.Event] = {}
        self.waiting: set[str] = set()
        """Commands that arrived and are held."""

    def hold(self, cmd: str) -> None:
        """Lets `cmd` wait before it is forwarded, until `release`."""
        self._held[cmd] = threading.Event()

    def release(self, cmd: str) -> None:
        self._held.pop(cmd).set()

    def release_all(self) -> None:
        for cmd in list(self._held):
            self.release(cmd)

    def answer(self, body: bytes) -> tuple[int, bytes]:
        command = json.loads(body)
        name = command["cmd"]
        self.commands.append(name)
        held = self._held.get(name)
        if held is not None:
            self.waiting.add(name)
            held.wait(60)
            self.waiting.discard(name)
        if name in self.failing:
            return 500, b"made to fail by the test"
        changed = json.dumps(self.change(command))
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            connection.request("POST", "/ControlService/cmd", changed)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            return 502, str(error).encode()
        finally:
            connection.close()

    def look(self, path: str) -> tuple[int, bytes]:
        """Forwards a GET as it is."""
        connection = http.client.HTTPConnection(self.target, timeout=30)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            return 502, str(error).encode()
        finally:
            connection.close()


class _Server(ThreadingHTTPServer):
    proxy: FaultProxy
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed leave broken connections, which is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    # Head and body in one segment: two would wait for each other's acknowledgement.
    wbufsize = -1

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self._reply(*self.server.proxy.answer(body))

    def do_GET(self) -> None:
        self._reply(*self.server.proxy.look(self.path))

    def _reply(self, status: int, reply: bytes) -> None:
        with contextlib.suppress(OSError):
            self.send_response(status)
            self.send_header("content-length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def proxied(target: str) -> Iterator[tuple[FaultProxy, int]]:
    """Runs a proxy to `target` ("host:port") on a free port."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.proxy = FaultProxy(target)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.proxy, server.server_address[1]
        finally:
            server.proxy.release_all()
            server.shutdown()
            thread.join(10)
