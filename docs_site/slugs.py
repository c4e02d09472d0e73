"""Anchors of headings."""

from __future__ import annotations

import re

_DROPPED = re.compile(r"[^\w\- ]")


def slug(text: str, separator: str) -> str:
    """The anchor of a heading, the same that code hosts make when they show the file."""
    return _DROPPED.sub("", text.strip().lower()).replace(" ", separator)
