"""Keeps secrets out of what is written for people and collectors of logs."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
SECRET_LENGTH_MIN = 8

_secrets: set[str] = set()

_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # User and password of an address.
    (re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/\"'<>]*@"), rf"\1{MASK}@"),
    (
        re.compile(
            r"(authorization[\"']?\s*[:=,]\s*[\"']?)(?:(?:bearer|basic|digest)\s+)?[^\s\"',)}\]]+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (re.compile(r"\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1{MASK}"),
    (
        re.compile(
            r"([?&](?:access_key|secret_key|password|signature|token|x-amz-[a-z-]+)=)[^&\s\"']+",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
)


def hide(secret: str) -> None:
    """Has a secret left out from now on, wherever it turns up."""
    if len(secret) >= SECRET_LENGTH_MIN:
        _secrets.add(secret)


def redacted(text: str) -> str:
    """The text without tokens that were hidden, `Authorization` headers, and passwords of
    addresses."""
    for secret in _secrets:
        text = text.replace(secret, MASK)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redacted_texts(value: Any) -> Any:
    """What JSON may hold, with each text in it redacted by itself: in its written form, quotes are
    escaped, and a mask might take an escape with it."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {name: redacted_texts(each) for name, each in value.items()}
    if isinstance(value, list):
        return [redacted_texts(each) for each in value]
    return value
