"""`?window=1h&step=10s`: durations as people write them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from drf_spectacular.utils import OpenApiParameter

from omni.rest.paging import refused

_FORM = re.compile(r"(\d{1,9})(ms|s|m|h|d)?")
_UNIT_US = {"ms": 1_000, "s": 1_000_000, None: 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
MOST_POINTS = 2_000
LONGEST_US = 400 * 86_400_000_000
SERIES_PARAMETERS = [
    OpenApiParameter("window", str, description="such as 1h: adds a series of that length"),
    OpenApiParameter("step", str, description="such as 10s"),
]


@dataclass(frozen=True, slots=True)
class Span:
    """A window that ends now, in steps."""

    window_us: int
    step_us: int

    @property
    def source_step_s(self) -> int:
        """Which stored resolution serves: as measured, or rolled up."""
        return 600 if self.step_us >= 600_000_000 else 60 if self.step_us >= 60_000_000 else 5


def read(window: str | None, step: str | None) -> Span | None:
    """None when no series is asked for. Raises InvalidInput."""
    if window is None and step is None:
        return None
    window_us = _duration("window", window or "1h")
    step_us = _duration("step", step) if step is not None else max(window_us // 360, 5_000_000)
    if not 0 < step_us <= window_us <= LONGEST_US:
        raise refused("step", "A step from 1 ms up to the window is wanted, and a window of at most 400 days.")
    if window_us // step_us > MOST_POINTS:
        raise refused("step", f"At most {MOST_POINTS} points; take a longer step.")
    return Span(window_us, step_us)


def _duration(name: str, text: str) -> int:
    found = _FORM.fullmatch(text)
    if found is None:
        raise refused(name, "A duration such as 30s, 10m, 1h or 7d is wanted.")
    return int(found.group(1)) * _UNIT_US[found.group(2)]
