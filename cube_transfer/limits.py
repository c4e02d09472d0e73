"""Defaults that the command line shows; imports nothing, so that showing them is quick."""

from __future__ import annotations

SAMPLE_INTERVAL_S = 5.0
"""Between two looks at what every server counts, for the page."""

MODEL_KEPT_S = 10.0
"""A model stays at least so long after it was published: CTR servers may be loading it, while
patches are deployed faster than that."""

REPLICA_DEADLINE_S = 30.0
"""A server that fails for so long holds up no deployment any more."""
