"""Defaults that the command line shows; imports nothing, so that showing them is quick."""

from __future__ import annotations

DOWNLOAD_BYTES_MAX = 1 << 40
"""One file of a pass; a source that sends more is not listened to any longer."""

REPLICA_DEADLINE_S = 30.0
"""A server that fails for so long holds up no deployment any more."""
