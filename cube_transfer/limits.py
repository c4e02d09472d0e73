"""Defaults that the command line shows; imports nothing, so that showing them is quick."""

from __future__ import annotations

SAMPLE_INTERVAL_S = 5.0
"""Between two looks at what every server counts, for the page."""

REPLICA_DEADLINE_S = 30.0
"""A server that fails for so long holds up no deployment any more."""
