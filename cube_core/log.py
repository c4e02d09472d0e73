"""Logging of the daemons: one line a record on stderr."""

from __future__ import annotations

import logging
import sys


def configure(role: str, level: int = logging.INFO) -> None:
    """Sends every record to stderr as `time level role logger: message`."""
    logging.basicConfig(
        level=level,
        stream=sys.stderr,
        format=f"%(asctime)s %(levelname)s {role} %(name)s: %(message)s",
        force=True,
    )
    # One line a request or a poll says nothing that a counter does not say better.
    for noisy in ("httpx", "httpcore", "watchfiles", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
