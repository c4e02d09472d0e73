"""What holds for every test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# How long one example takes says nothing on a machine that is shared with other work.
settings.register_profile(
    "shared-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("shared-machine")
