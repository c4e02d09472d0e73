"""A directory behind real HTTP with Range, whose answers a test can hold, cut or replace."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class HttpDirectory:
    """`statuses` maps a path's end to the status to answer with; `hold` keeps answers back."""

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.statuses: dict[str, int] = {}
        self.cuts: dict[str, int] = {}
        """After so many bytes of the path the connection is closed, once."""
        self.ranges: list[str] = []
        """What was asked for by Range."""
        self._held: dict[str, threading.Event] = {}

    def hold(self, path_end: str) -> None:
        self._held[path_end] = threading.Event()

    def release(self, path_end: str) -> None:
        self._held.pop(path_end).set()

    def release_all(self) -> None:
        for path_end in list(self._held):
            self.release(path_end)

    def arrive(self, path: str) -> int:
        """Called for each request; returns the status to answer with, 200 = the file."""
        self.requests.append(path)
        for path_end, held in list(self._held.items()):
            if path.endswith(path_end):
                held.wait(60)
        return next((s for end, s in self.statuses.items() if path.endswith(end)), 200)


class _Server(ThreadingHTTPServer):
    directory: HttpDirectory
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that are killed leave broken connections, which is what is tested."""


class _Handler(SimpleHTTPRequestHandler):
    server: _Server

    def __init__(self, request: Any, client_address: Any, server: _Server) -> None:
        super().__init__(request, client_address, server, directory=str(server.directory.root))

    def do_GET(self) -> None:
        status = self.server.directory.arrive(self.path)
        with contextlib.suppress(OSError):
            if status != 200:
                self.send_error(status)
            elif not self._answer_part():
                super().do_GET()

    def _answer_part(self) -> bool:
        """Answers a request with Range, or one that is to be cut; False for others."""
        directory = self.server.directory
        path = Path(self.translate_path(self.path))
        asked = self.headers.get("range", "")
        cut = next((end for end in directory.cuts if self.path.endswith(end)), None)
        if not path.is_file() or not (asked or cut):
            return False
        data = path.read_bytes()
        offset = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        if asked:
            directory.ranges.append(asked)
        if offset > len(data):
            self.send_error(416)
            return True
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("content-range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
        self.send_header("content-length", str(len(data) - offset))
        self.end_headers()
        length = directory.cuts.pop(cut) if cut else len(data)
        self.wfile.write(data[offset : offset + length])
        self.close_connection = True
        return True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def http_directory(root: Path) -> Iterator[HttpDirectory]:
    """Serves `root` on a free port."""
    with _Server(("127.0.0.1", 0), _Handler, bind_and_activate=True) as server:
        server.directory = HttpDirectory(root, server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.directory
        finally:
            server.directory.release_all()
            server.shutdown()
            thread.join(10)
