"""A directory behind real HTTP with Range, whose answers a test can hold, cut or replace."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class HttpDirectory:
    """`statuses` maps a path's end to the status to answer with; `hold` keeps answers back.

    It tells Last-Modified, and the ETag of `etags`; with either it takes If-Range.
    """

    def __init__(self, root: Path, port: int) -> None:
        self.root = root
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[str] = []
        self.statuses: dict[str, int] = {}
        self.cuts: dict[str, int] = {}
        """After so many bytes of the path the connection is closed, once."""
        self.ranges: list[str] = []
        """What was asked for by Range."""
        self.if_ranges: list[str] = []
        self.etags: dict[str, str] = {}
        """By a path's end."""
        self.overlooks_conditions = False
        """Whether Range is answered whatever If-Range says."""
        self.md5s: dict[str, str] = {}
        """Content-MD5 by a path's end."""
        self.redirects: dict[str, str] = {}
        """Where a path leads."""
        self.meeting: threading.Barrier | None = None
        """What requests for parts wait at, for one another."""
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
        if self.meeting is not None and "part-" in path:
            try:
                self.meeting.wait(20)
            except threading.BrokenBarrierError:
                return 409
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
            elif self.path in self.server.directory.redirects:
                self._redirect()
            elif not self._answer_part():
                super().do_GET()

    def do_HEAD(self) -> None:
        if self.path in self.server.directory.redirects:
            self._redirect()
        else:
            super().do_HEAD()

    def end_headers(self) -> None:
        directory = self.server.directory
        for name, values in (("etag", directory.etags), ("content-md5", directory.md5s)):
            for end, value in values.items():
                if self.path.endswith(end):
                    self.send_header(name, value)
        super().end_headers()

    def _redirect(self) -> None:
        self.send_response(302)
        self.send_header("location", self.server.directory.redirects[self.path])
        self.send_header("content-length", "0")
        self.end_headers()

    def _answer_part(self) -> bool:
        """Answers a request with Range, or one that is to be cut; False for others."""
        directory = self.server.directory
        path = Path(self.translate_path(self.path))
        asked = self._asked_range(path)
        cut = next((end for end in directory.cuts if self.path.endswith(end)), None)
        if not path.is_file() or not (asked or cut):
            return False
        data = path.read_bytes()
        offset = int(asked.removeprefix("bytes=").removesuffix("-") or 0)
        if offset > len(data):
            self.send_error(416)
            return True
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("content-range", f"bytes {offset}-{len(data) - 1}/{len(data)}")
        self.send_header("content-length", str(len(data) - offset))
        self.send_header("last-modified", self._changed_at(path))
        self.end_headers()
        length = directory.cuts.pop(cut) if cut else len(data)
        self.wfile.write(data[offset : offset + length])
        self.close_connection = True
        return True

    def _asked_range(self, path: Path) -> str:
        """ "" when there is none, or If-Range names another file than is there."""
        directory = self.server.directory
        asked: str = self.headers.get("range", "")
        if asked:
            directory.ranges.append(asked)
        condition = self.headers.get("if-range")
        if not asked or condition is None:
            return asked
        directory.if_ranges.append(condition)
        if directory.overlooks_conditions:
            return asked
        etag = next((each for end, each in directory.etags.items() if self.path.endswith(end)), "")
        return asked if condition in (etag, self._changed_at(path)) else ""

    def _changed_at(self, path: Path) -> str:
        return self.date_time_string(int(path.stat().st_mtime))

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
