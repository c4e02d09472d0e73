"""Records as people and as collectors get them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core import log as logs
from cube_core.access import Access, Asker, audit
from cube_core.errors import ConfError
from cube_core.redaction import hide, redacted, redacted_texts

TOKEN = "a-token-nobody-may-read"  # noqa: S105
log = logging.getLogger("cube.test")


@pytest.fixture(autouse=True)
def logging_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`configure` is meant for a process of its own."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "human")
    monkeypatch.setattr("sys.excepthook", None)
    monkeypatch.setattr("cube_core.redaction._secrets", set())
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


class Written:
    """What was written to stderr since `configure`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, log_format: str) -> None:
        self._text = io.StringIO()
        monkeypatch.setattr("sys.stderr", self._text)
        logs.configure("a-role", log_format=log_format)

    @property
    def text(self) -> str:
        return self._text.getvalue()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def test_a_line_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch, "human")
    log.warning("disk %d is full", 3)
    assert written.text.endswith(" WARNING a-role cube.test: disk 3 is full\n")
    assert logs.is_json() is False


def test_an_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch, "json")
    with logs.fields(dict="d", version="10_10", empty=""):
        log.info("two\nlines \u2028 \udcff", extra={"fields": {"stage": "ship", "role": "other"}})
    log.info("outside")
    inside, outside = written.objects
    assert inside["message"] == "two\nlines \u2028 \udcff"
    assert (inside["dict"], inside["version"], inside["stage"]) == ("d", "10_10", "ship")
    assert inside["role"] == "a-role"
    assert "empty" not in inside
    assert not {"dict", "version", "stage", "request_id"} & set(outside)


def test_an_exception_is_one_field(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch, "json")
    try:
        raise ValueError(f"cannot read ftp://user:pass@host/x with {'Bearer ' + TOKEN}")
    except ValueError:
        log.exception("it failed")
    (line,) = written.objects
    assert line["exception"].startswith("Traceback (most recent call last):")
    assert "ftp://***@host/x with Bearer ***" in line["exception"]


async def test_fields_follow_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch, "json")

    async def work(request: str) -> None:
        logs.set_request_id(request)
        with logs.fields(version=request * 2):
            await asyncio.to_thread(log.info, "in a thread")

    await asyncio.gather(work("1"), work("2"))
    log.info("neither")
    *both, neither = written.objects
    assert sorted((each["request_id"], each["version"]) for each in both) == [
        ("1", "11"),
        ("2", "22"),
    ]
    assert "request_id" not in neither


def test_an_audit_line_has_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Written(monkeypatch, "json")
    audit(Asker("10.0.0.1:99", TOKEN), "bg_switch 10_10", "done")
    (line,) = written.objects
    assert line["logger"] == "cube.audit"
    assert line["message"] == "who=10.0.0.1:99 token=True what=bg_switch 10_10 result=done"
    assert (line["who"], line["token"]) == ("10.0.0.1:99", True)
    assert (line["what"], line["result"]) == ("bg_switch 10_10", "done")


def test_tokens_in_use_are_left_out_wherever_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    Access("", TOKEN)
    for log_format in ("human", "json"):
        written = Written(monkeypatch, log_format)
        log.warning("the peer said %r", f"<{TOKEN}>")
        assert TOKEN not in written.text
        assert "***" in written.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ftp://user:pass@host/x", "ftp://***@host/x"),
        ("s3://key:se@cret@bucket/y?z=1", "s3://***@bucket/y?z=1"),
        ("Authorization: Bearer abc.def-123", "Authorization: ***"),
        ("{'authorization': 'Basic dXNlcjpwYXNz'}", "{'authorization': '***'}"),
        ("s3://b/k?access_key=AK&region=eu", "s3://b/k?access_key=***&region=eu"),
        ("mail to a@b.org, see https://host/x@y", "mail to a@b.org, see https://host/x@y"),
        ("send it as 'Bearer <token>' in Authorization", None),
    ],
)
def test_redacted(text: str, shown: str | None) -> None:
    assert redacted(text) == (text if shown is None else shown)


def test_texts_are_redacted_as_they_are_and_not_as_json_writes_them() -> None:
    told = {"error": 'refused authorization: "x" of ftp://u:p@h', "shards": [{"took_s": 1.5}, None]}
    assert redacted_texts(told) == {
        "error": 'refused authorization: "***" of ftp://***@h',
        "shards": [{"took_s": 1.5}, None],
    }


_WORDS = st.text(st.characters(min_codepoint=33, exclude_characters="/\"'<>@:"), min_size=8)


@given(_WORDS.filter(lambda word: word.strip() == word and len(word.split()) == 1), st.text())
def test_no_password_of_an_address_is_shown(password: str, around: str) -> None:
    assert f":{password}@" not in redacted(f"{around} ftp://user:{password}@host/{around}")


@given(_WORDS)
def test_no_hidden_secret_is_shown(secret: str) -> None:
    hide(secret)
    assert secret in ("***", "*" * len(secret)) or secret not in redacted(f"x{secret}y{secret}")


def test_the_environment_says_the_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "json")
    logs.configure("a-role")
    assert logs.is_json()
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "xml")
    with pytest.raises(ConfError, match="environment: CUBE_LOG_FORMAT: 'xml' is no format"):
        logs.configure("a-role")
