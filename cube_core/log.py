"""Logging of the daemons: one line a record on stderr, for people or as JSON."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timezone
from enum import Enum
from types import TracebackType
from typing import Any

from cube_core.errors import ConfError
from cube_core.redaction import redacted

FORMAT_VARIABLE = "CUBE_LOG_FORMAT"

RequestId = str | Callable[[], str]
"""Called only when a line is written."""

_request_id: ContextVar[RequestId] = ContextVar("request_id", default="")
_fields: ContextVar[Mapping[str, object] | None] = ContextVar("log_fields", default=None)
_early_warnings: list[str] = []


class LogFormat(str, Enum):
    """How a record is written."""

    HUMAN = "human"
    JSON = "json"


def configure(
    role: str, level: int = logging.INFO, log_format: LogFormat | str | None = None
) -> None:
    """Sends every record to stderr: `time level role logger: message`, or an object of JSON.

    Processes that this one starts take the same format.

    Args:
        log_format: None for what the environment says, else people's.

    Raises:
        ConfError: there is no such format.
    """
    format_ = _format(log_format)
    os.environ[FORMAT_VARIABLE] = format_.value
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(role) if format_ is LogFormat.JSON else _Lines(role))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if format_ is LogFormat.JSON:
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
    # One line a request or a poll says nothing that a counter does not say better.
    for noisy in ("httpx", "httpcore", "watchfiles", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    while _early_warnings:
        logging.getLogger(__name__).warning("%s", _early_warnings.pop(0))


def warn_once_configured(text: str) -> None:
    """A warning from before `configure` knows how to write it."""
    _early_warnings.append(text)


def is_json() -> bool:
    """Whether `configure` has chosen JSON."""
    handlers = logging.getLogger().handlers
    return any(isinstance(each.formatter, JsonFormatter) for each in handlers)


@contextmanager
def fields(**values: object) -> Iterator[None]:
    """Adds fields, such as `dict` and `version`, to every line that is written inside, also by the
    tasks and threads that are begun there. Empty ones are left out."""
    known = {name: value for name, value in values.items() if value not in ("", None)}
    token = _fields.set({**(_fields.get() or {}), **known})
    try:
        yield
    finally:
        _fields.reset(token)


def set_request_id(request_id: RequestId) -> None:
    """Says for the rest of the task which request its lines are about."""
    _request_id.set(request_id)


def request_id() -> str:
    """Of the request that the task works for; "" for none."""
    found = _request_id.get()
    return found if isinstance(found, str) else found()


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What is known beside the message: the request, fields of the task, those of the record."""
    own = getattr(record, "fields", None) or {}
    found = {"request_id": request_id(), **(_fields.get() or {}), **own}
    return {name: value for name, value in found.items() if value not in ("", None)}


class JsonFormatter(logging.Formatter):
    """One object a line; see docs/reference/logs.md."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "role": self._role,
            "pid": record.process,
        }
        line |= {name: value for name, value in fields_of(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: _shown(value) for name, value in line.items()}, default=str)


class _Lines(logging.Formatter):
    def __init__(self, role: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {role} %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  name of logging
        line = super().formatMessage(record)
        # What else is known is in the text, where it matters to people.
        request = fields_of(record).get("request_id")
        return f"{line} [request_id={request}]" if request else line


def _shown(value: object) -> object:
    return redacted(value) if isinstance(value, str) else value


def _format(log_format: LogFormat | str | None) -> LogFormat:
    name = log_format or os.environ.get(FORMAT_VARIABLE, "") or LogFormat.HUMAN
    try:
        return LogFormat(name)
    except ValueError as error:
        origin = (
            ("command line", "--log_format") if log_format else ("environment", FORMAT_VARIABLE)
        )
        known = " or ".join(each.value for each in LogFormat)
        raise ConfError(*origin, f"{name!r} is no format of logs; say {known}") from error


def _log_uncaught(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    logging.getLogger(__name__).critical("the process ends", exc_info=(kind, error, trace))
