"""Settings that all tests share."""

from __future__ import annotations

import os

# Before torch is imported: two workers with two threads each on two cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

_ALWAYS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("default", max_examples=15, **_ALWAYS)
settings.register_profile("thorough", max_examples=400, **_ALWAYS)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
