"""An audit that finds something fails; one that nobody answers says so; none passes in between."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from release.audit import findings, pinned, pypi_problem, run

LOCK = """harmless==1.0 ; python_version < '3.11' \\
    --hash=sha256:00
harmless==2.0 ; python_version >= '3.11' \\
    --hash=sha256:00
weak==3.1 \\
    --hash=sha256:00
"""
NOWHERE = "http://127.0.0.1:1/"
WEAKNESS = {
    "id": "PYSEC-1",
    "summary": "falls over",
    "affected": [
        {
            "package": {"name": "weak", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.2"}]}],
        }
    ],
}


class Database(http.server.ThreadingHTTPServer):
    """Answers as osv.dev does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.weak = {"weak": [WEAKNESS]}
        self.statuses: dict[str, int] = {}
        self.asked: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/query"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Database

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["content-length"])))
        name = query["package"]["name"]
        self.server.asked.append((name, query["version"]))
        found = self.server.weak.get(name)
        self._answer(self.server.statuses.get(name, 200), {"vulns": found} if found else {})

    def do_GET(self) -> None:
        self._answer(404, {})

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def database() -> Iterator[Database]:
    with Database() as database:
        thread = threading.Thread(target=database.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield database
        database.shutdown()
        thread.join()


def test_a_weakness_fails_it(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([LOCK], database.url, NOWHERE) == 1
    assert "audit: weak 3.1: PYSEC-1, fixed in 3.2" in capsys.readouterr().out
    asked = {each for each in database.asked if each[0] != "pip"}
    assert asked == {("harmless", "1.0"), ("harmless", "2.0"), ("weak", "3.1")}


def test_without_one_it_tells_what_was_looked_up(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.weak.clear()
    assert run([LOCK], database.url, NOWHERE) == 0
    assert "audit: no known weakness in 3 locked packages" in capsys.readouterr().out


def test_a_database_that_fails_amid_it_fails_it(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    database.statuses["weak"] = 500
    assert run([LOCK], database.url, NOWHERE) == 1
    assert "audit: pip-audit: exit code" in capsys.readouterr().out


def test_nobody_to_ask_passes_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([LOCK], NOWHERE, NOWHERE) == 0
    assert "audit: NOTHING WAS AUDITED, no database can be reached" in capsys.readouterr().out


def test_an_audit_that_is_required_fails_without_anybody_to_ask(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([LOCK], NOWHERE, NOWHERE, require=True) == 1
    assert "audit: NOTHING WAS AUDITED" in capsys.readouterr().out
    database.weak.clear()
    assert run([LOCK], database.url, NOWHERE, require=True) == 0


def test_a_mirror_without_the_pages_is_no_database(database: Database) -> None:
    assert "HTTP 404" in pypi_problem(database.url)


def test_what_was_skipped_is_a_finding() -> None:
    report = {"dependencies": [{"name": "a", "skip_reason": "not found"}]}
    assert findings(report) == ["a: was not audited: not found"]


def test_every_version_of_a_lock_is_looked_up() -> None:
    assert pinned([LOCK, LOCK]) == [["harmless==1.0", "weak==3.1"], ["harmless==2.0"]]
