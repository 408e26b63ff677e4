"""pytest plugin, loaded by `-p omni.testing.profiles`: how hard hypothesis tries (OMNI_TEST_HYPOTHESIS=ci|long)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW = [HealthCheck.too_slow]
# The machines of CI stall now and then; a deadline would report that as a failure of the code.
settings.register_profile("ci", deadline=None, suppress_health_check=_SLOW)
settings.register_profile("long", deadline=None, suppress_health_check=_SLOW, max_examples=3000)
settings.load_profile(os.environ.get("OMNI_TEST_HYPOTHESIS", "ci"))
