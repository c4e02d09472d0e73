"""Defaults that the command line shows; imports nothing, so that showing them is quick."""

from __future__ import annotations

REPLICA_DEADLINE_S = 30.0
"""A server that fails for so long holds up no deployment any more."""
